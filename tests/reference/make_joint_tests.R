# Joint tests of terms by lmerTest (type I, II and III), Wald tests of generalised models by car.
#   cd tests/reference && OMP_NUM_THREADS=1 Rscript make_joint_tests.R   (R >= 4.2, lme4, lmerTest, pbkrtest, car, jsonlite, minqa)
# Writes joint_tests.json from the shipped CSV files. `keep` is the rows that are kept: those whose number (from 0) is not
# among `left` modulo `modulus`, and that are in no empty cell.
source("ref_helpers.R")
suppressMessages({library(lmerTest); library(pbkrtest); library(car)})
covariance <- function(m) {     # of the fixed effects, by the joint Hessian, as in make_effects.R
  fn <- sharp(update(m, devFunOnly = TRUE)); x <- c(getME(m, "theta"), fixef(m))
  H <- hess_r(fn, x, steps(fn, x, fn(x)), levels = 2)
  V <- 2 * solve(H)[-seq_along(getME(m, "theta")), -seq_along(getME(m, "theta"))]
  dimnames(V) <- list(names(fixef(m)), names(fixef(m))); V
}
cases <- list()
thinned <- function(d, modulus, left) if (modulus == 0) d else d[!((seq_len(nrow(d)) - 1) %% modulus %in% left), ]
case <- function(id, file, formula, levels, modulus = 0, left = 0, empty = "", dfs = c("Satterthwaite", "Kenward-Roger"), coding = "contr.treatment") {
  options(contrasts = c(coding, "contr.treatment"))
  d <- thinned(read_data(file, levels), modulus, left)
  if (empty != "") d <- d[!(paste(d$recipe, d$temp) %in% strsplit(empty, ";")[[1]]), ]
  if ("temp" %in% names(d)) d$t <- factor(d$temp)
  assign(".d", d, globalenv())
  f <- as.formula(formula); environment(f) <- globalenv()
  m <- suppressMessages(lmerTest::lmer(f, .d, control = lmerControl(optimizer = "tight", calc.derivs = FALSE)))
  out <- list()
  for (df in dfs) for (type in c("1", "2", "3")) {
    a <- suppressMessages(anova(m, type = type, ddf = df))
    out[[paste(df, type)]] <- list(term = I(rownames(a)), F = I(a[["F value"]]), df_num = I(a$NumDF), df_den = I(a$DenDF), p_value = I(a[["Pr(>F)"]]))
  }
  cases[[length(cases) + 1]] <<- list(id = id, data = sub(".csv", "", file), formula = formula, modulus = modulus, left = I(left), empty = empty, results = out)
}
g <- list(recipe = "auto", replicate = "auto")
case("sleepstudy", "sleepstudy.csv", "Reaction ~ Days + (Days | Subject)", list(Subject = "auto"))
case("cake", "cake.csv", "angle ~ recipe * t + (1 | recipe:replicate)", g)
case("Machines", "Machines.csv", "score ~ Machine + (1 | Worker) + (1 | Worker:Machine)", list(Machine = "auto", Worker = "auto"))
case("unbalanced", "cake.csv", "angle ~ recipe * t + (1 | recipe:replicate)", g, 7, c(0, 2, 3))
case("covariate", "cake.csv", "angle ~ recipe * temp + (1 | recipe:replicate)", g, 7, c(0, 2, 3))
case("slopes within", "cake.csv", "angle ~ recipe + recipe:temp + (1 | recipe:replicate)", g, 7, c(0, 2, 3))
case("missing cells", "cake.csv", "angle ~ recipe * t + (1 | recipe:replicate)", g, 11, c(0, 4), "A 175;C 225")
case("without intercept", "cake.csv", "angle ~ 0 + recipe + temp + (1 | recipe:replicate)", g, 7, 1)
glmms <- list()
wald <- function(id, file, formula, levels, coding, type) {
  options(contrasts = c(coding, "contr.poly"))
  d <- read_data(file, levels); assign(".d", d, globalenv())
  f <- as.formula(formula); environment(f) <- globalenv()
  m <- glmer(f, .d, family = binomial, control = glmerControl(optimizer = "tight"))
  a <- car::Anova(m, type = type, vcov. = covariance(m)); a <- a[rownames(a) != "(Intercept)", ]
  glmms[[length(glmms) + 1]] <<- list(id = id, data = sub(".csv", "", file), formula = formula, type = type, term = I(rownames(a)), chi2 = I(a$Chisq), df = I(a$Df), p_value = I(a[["Pr(>Chisq)"]]))
}
l <- list(use = "auto", urban = "auto", livch = "auto", district = "auto")
wald("Contraception 2", "Contraception.csv", "use ~ age + urban * livch + (1 | district)", l, "contr.treatment", 2)
wald("Contraception 3", "Contraception.csv", "use ~ age + urban * livch + (1 | district)", l, "contr.sum", 3)
write(toJSON(list(linear = cases, generalized = glmms), digits = NA, auto_unbox = TRUE, pretty = TRUE), "joint_tests.json")
