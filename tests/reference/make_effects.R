# Marginal means, contrasts and slopes by emmeans.
#   cd tests/reference && OMP_NUM_THREADS=1 Rscript make_effects.R     (R >= 4.2, lme4, emmeans, lmerTest, pbkrtest, jsonlite, minqa)
# Writes effects.json from the shipped CSV files.
source("ref_helpers.R")
suppressMessages({library(emmeans); library(lmerTest); library(pbkrtest)})
covariance <- function(m) {
  if (isLMM(m)) return(as.matrix(vcov(m)))
  fn <- sharp(update(m, devFunOnly = TRUE)); x <- c(getME(m, "theta"), fixef(m))
  H <- hess_r(fn, x, steps(fn, x, fn(x)), levels = 2)
  V <- 2 * solve(H)[-seq_along(getME(m, "theta")), -seq_along(getME(m, "theta"))]
  dimnames(V) <- list(names(fixef(m)), names(fixef(m))); V
}
numbers <- function(t, center) {
  p <- intersect(c("asymp.LCL", "lower.CL"), names(t)); q <- intersect(c("asymp.UCL", "upper.CL"), names(t))
  list(estimate = I(t[[center]]), se = I(t$SE), df = I(ifelse(is.finite(t$df), t$df, -1)),
       lower = I(t[[p]]), upper = I(t[[q]]), p_value = I(t$p.value))
}
centre <- function(t) intersect(c("emmean", "prob", "estimate"), names(t))[1]
table <- function(g, ...) { t <- as.data.frame(summary(g, infer = TRUE, level = .9, ...)); numbers(t, centre(t)) }
cases <- list()
case <- function(id, file, formula, levels, variable, family = NULL, by = NULL, dfs = "asymptotic") {
  d <- read_data(file, levels)
  assign(".d", d, globalenv())
  f <- as.formula(formula); environment(f) <- globalenv()
  m <- if (is.null(family)) lmerTest::lmer(f, .d, control = lmerControl(optimizer = "tight", calc.derivs = FALSE)) else
    glmer(f, .d, family = family, control = glmerControl(optimizer = "tight"))
  out <- list()
  for (df in dfs) {
    g <- if (is.null(family)) emmeans(m, variable, by = by, lmer.df = df) else emmeans(m, variable, by = by, vcov. = covariance(m))
    o <- list(means = table(g))
    if (nrow(as.data.frame(g)) > 1) {
      o$pairs <- table(contrast(g, "pairwise"), adjust = "tukey")
      o$pairs_holm <- table(contrast(g, "pairwise"), adjust = "holm")
      o$reference <- table(contrast(g, "trt.vs.ctrl1"), adjust = "none")
      o$sequential <- table(contrast(g, "consec"), adjust = "holm")
    }
    if (!is.null(family)) {
      o$response <- table(g, type = "response")
      r <- regrid(g); o$response_pairs <- table(contrast(r, "pairwise"), adjust = "tukey")
    }
    out[[df]] <- o
  }
  cases[[length(cases) + 1]] <<- list(id = id, data = sub(".csv", "", file), formula = formula,
    family = if (is.null(family)) "gaussian" else "binomial", variable = variable, by = if (is.null(by)) "" else by, results = out)
}
all <- c("asymptotic", "satterthwaite", "kenward-roger")
case("sleepstudy", "sleepstudy.csv", "Reaction ~ Days + (Days | Subject)", list(Subject = "auto"), "Days", dfs = all)
case("cake", "cake.csv", "angle ~ recipe * temp + (1 | recipe:replicate)", list(recipe = "auto", replicate = "auto"), "recipe", dfs = all)
case("Machines", "Machines.csv", "score ~ Machine + (1 | Worker) + (1 | Worker:Machine)", list(Machine = "auto", Worker = "auto"), "Machine", dfs = all)
case("Penicillin", "Penicillin.csv", "diameter ~ sample + (1 | plate)", list(plate = "auto", sample = "auto"), "sample", dfs = all)
case("cbpp", "cbpp.csv", "cbind(incidence, size - incidence) ~ period + (1 | herd)", list(period = "auto", herd = "auto"), "period", binomial())
case("Contraception", "Contraception.csv", "use ~ age + urban + livch + (1 | district)", list(use = "auto", urban = "auto", livch = "auto", district = "auto"), "livch", binomial())
case("Contraception within", "Contraception.csv", "use ~ age + urban * livch + (1 | district)", list(use = "auto", urban = "auto", livch = "auto", district = "auto"), "livch", binomial(), by = "urban")
# slopes of what is linear in the variable: emtrends takes a one-sided difference quotient
slopes <- list()
trend <- function(id, file, formula, levels, variable, by = NULL, family = NULL, dfs = "asymptotic") {
  d <- read_data(file, levels); assign(".d", d, globalenv())
  f <- as.formula(formula); environment(f) <- globalenv()
  m <- if (is.null(family)) lmerTest::lmer(f, .d, control = lmerControl(optimizer = "tight", calc.derivs = FALSE)) else
    glmer(f, .d, family = family, control = glmerControl(optimizer = "tight"))
  out <- list()
  for (df in dfs) {
    g <- if (is.null(family)) emtrends(m, if (is.null(by)) ~ 1 else by, var = variable, lmer.df = df) else
      emtrends(m, if (is.null(by)) ~ 1 else by, var = variable, vcov. = covariance(m))
    t <- as.data.frame(summary(g, infer = TRUE, level = .9)); out[[df]] <- numbers(t, paste0(variable, ".trend"))
  }
  slopes[[length(slopes) + 1]] <<- list(id = id, data = sub(".csv", "", file), formula = formula,
    family = if (is.null(family)) "gaussian" else "binomial", variable = variable, by = if (is.null(by)) "" else by, results = out)
}
trend("sleepstudy", "sleepstudy.csv", "Reaction ~ Days + (Days | Subject)", list(Subject = "auto"), "Days", dfs = all)
trend("cake", "cake.csv", "angle ~ recipe * temp + (1 | recipe:replicate)", list(recipe = "auto", replicate = "auto"), "temp", "recipe", dfs = all)
trend("Contraception", "Contraception.csv", "use ~ age * urban + livch + (1 | district)", list(use = "auto", urban = "auto", livch = "auto", district = "auto"), "age", "urban", binomial())
write(toJSON(list(tables = cases, slopes = slopes), digits = NA, auto_unbox = TRUE, pretty = TRUE), "effects.json")
