# Predictions by lme4, standard errors and intervals of typical groups by emmeans (z, not t).
#   cd tests/reference && OMP_NUM_THREADS=1 Rscript make_predictions.R     (R >= 4.2, lme4, emmeans, jsonlite, minqa)
# Writes predictions.json from the shipped CSV files. `rows` are rows of the data, numbered from 0.
source("ref_helpers.R")
suppressMessages(library(emmeans))
emm_options(lmer.df = "asymptotic")
cases <- list()
# of the fixed effects: of a GLMM by the Hessian of the deviance in all parameters, differences of Richardson
covariance <- function(m) {
  if (isLMM(m)) return(as.matrix(vcov(m)))
  fn <- sharp(update(m, devFunOnly = TRUE)); x <- c(getME(m, "theta"), fixef(m))
  H <- hess_r(fn, x, steps(fn, x, fn(x)), levels = 2)
  V <- 2 * solve(H)[-seq_along(getME(m, "theta")), -seq_along(getME(m, "theta"))]
  dimnames(V) <- list(names(fixef(m)), names(fixef(m))); V
}
case <- function(id, file, formula, levels, grid, family = NULL, terms = list()) {
  d <- read_data(file, levels)
  assign(".d", d, globalenv())
  f <- as.formula(formula); environment(f) <- globalenv()
  m <- if (is.null(family)) lmer(f, .d, control = lmerControl(optimizer = "tight", calc.derivs = FALSE)) else
    glmer(f, .d, family = family, control = glmerControl(optimizer = "tight"))
  rows <- round(seq(1, nrow(d), length.out = 8)); new <- d[rows, ]
  g <- if (length(grid)) emmeans(m, specs = names(grid), at = grid, vcov. = covariance(m)) else emmeans(m, ~ 1)
  link <- as.data.frame(summary(g, level = .9)); response <- as.data.frame(summary(g, level = .9, type = "response"))
  ends <- c("asymp.LCL", "asymp.UCL"); center <- setdiff(names(response), c(names(grid), "SE", "df", ends, "1"))
  table <- function(t, center) list(estimate = I(t[[center]]), se = I(t$SE), lower = I(t$asymp.LCL), upper = I(t$asymp.UCL))
  at <- if (length(grid)) lapply(link[, names(grid), drop = FALSE], function(v) if (is.factor(v)) as.character(v) else v)
  cases[[length(cases) + 1]] <<- list(id = id, data = sub(".csv", "", file), formula = formula,
    family = if (is.null(family)) "gaussian" else "binomial", rows = rows - 1,
    known = I(unname(predict(m, new, type = "response"))), population = I(unname(predict(m, new, re.form = NA, type = "response"))),
    terms = lapply(terms, function(t) I(unname(predict(m, new, re.form = as.formula(t), type = "response")))),
    at = lapply(at, I), link = table(link, "emmean"), response = table(response, center[1]))
}
case("sleepstudy", "sleepstudy.csv", "Reaction ~ Days + (Days | Subject)", list(Subject = "auto"), list(Days = c(0, 5, 9)))
case("cake", "cake.csv", "angle ~ recipe + temp + (1 | recipe:replicate)", list(recipe = "auto", replicate = "auto"),
     list(recipe = c("A", "B", "C"), temp = c(175, 200)))
case("Machines", "Machines.csv", "score ~ Machine + (1 | Worker) + (1 | Worker:Machine)", list(Machine = "auto", Worker = "auto"),
     list(Machine = c("A", "B", "C")), terms = list(Worker = "~ (1 | Worker)"))
case("Penicillin", "Penicillin.csv", "diameter ~ 1 + (1 | plate) + (1 | sample)", list(plate = "auto", sample = "auto"), list(),
     terms = list(plate = "~ (1 | plate)", sample = "~ (1 | sample)"))
case("cbpp", "cbpp.csv", "cbind(incidence, size - incidence) ~ period + (1 | herd)", list(period = "auto", herd = "auto"),
     list(period = c("1", "2", "3", "4")), binomial())
case("Contraception", "Contraception.csv", "use ~ age + urban + (1 | district)", list(use = "auto", urban = "auto", district = "auto"),
     list(age = c(-5, 10), urban = c("N", "Y")), binomial())
write(toJSON(cases, digits = NA, auto_unbox = TRUE, pretty = TRUE), "predictions.json")
