# Reference results for tests, intervals, degrees of freedom, R2/ICC, marginal means and predictions.
#   OMP_NUM_THREADS=1 Rscript make_inference.R     (about 10 minutes)
# Needs lme4, lmerTest, pbkrtest, RLRsim, performance, emmeans, jsonlite, minqa. Writes inference.json.
DATA <- "../data"
source("ref_helpers.R")
suppressMessages({library(pbkrtest); library(RLRsim); library(emmeans)})
ctl  <- lmerControl(optimizer = tight)
gctl <- glmerControl(optimizer = list("bobyqa", tight), tolPwrss = 1e-13)
# calls are built with the data's name in them, so that update() works later
fit  <- function(f, d, REML = TRUE) suppressMessages(eval(substitute(lme4::lmer(F_, D_, REML = R_, control = ctl), list(F_ = f, D_ = substitute(d), R_ = REML)), globalenv()))
gfit <- function(f, d) suppressWarnings(suppressMessages(glmer(f, d, family = binomial, control = gctl)))
A <- "auto"
Dyestuff <- read_data("Dyestuff.csv", list(Batch = A)); Penicillin <- read_data("Penicillin.csv", list(plate = A, sample = A))
Pastes <- read_data("Pastes.csv", list(batch = A, cask = A, sample = A)); sleepstudy <- read_data("sleepstudy.csv", list(Subject = A))
cake <- read_data("cake.csv", list(recipe = A, replicate = A, temperature = A)); Machines <- read_data("Machines.csv", list(Worker = A, Machine = A))
musicdata <- read_data("musicdata.csv", list(id = A, perform_type = A))
ScotsSec <- read_data("ScotsSec.csv", list(primary = A, second = A, sex = c("M", "F")))
Contraception <- read_data("Contraception.csv", list(district = A, use = c("N", "Y"), livch = c("0", "1", "2", "3+"), urban = c("N", "Y")))
Contraception$ch <- factor(ifelse(Contraception$livch == "0", "N", "Y"), levels = c("N", "Y"))
form <- function(m) paste(deparse(formula(m), width.cutoff = 500), collapse = " ")
timed <- function(label, expr) { t <- system.time(v <- expr)[[3]]; cat(sprintf("%-40s %.1fs\n", label, t)); v }
out <- list()

## ------------------------------------------------ likelihood ratio tests (ML)
lrt <- function(id, data, small, large, boundary = FALSE, note = NULL) {
  a <- anova(small, large, refit = FALSE)
  one <- function(m, i) list(formula = form(m), npar = a$npar[i], logLik = a$logLik[i], deviance = -2 * a$logLik[i], AIC = a$AIC[i], BIC = a$BIC[i])
  c(list(id = id, data = data, criterion = "ML", null = one(small, 1), alternative = one(large, 2), chisq = a$Chisq[2], df = a$Df[2], p_chi2 = a[["Pr(>Chisq)"]][2]),
    if (boundary) list(p_half_chi2 = a[["Pr(>Chisq)"]][2] / 2), if (!is.null(note)) list(note = note))
}
pa_full <- fit(strength ~ 1 + (1 | batch) + (1 | sample), Pastes, FALSE); pa_null <- fit(strength ~ 1 + (1 | sample), Pastes, FALSE)
ss_corr <- fit(Reaction ~ Days + (Days | Subject), sleepstudy, FALSE); ss_unc <- fit(Reaction ~ Days + (1 | Subject) + (0 + Days | Subject), sleepstudy, FALSE)
ss_int <- fit(Reaction ~ Days + (1 | Subject), sleepstudy, FALSE)
cm1 <- gfit(use ~ age + I(age^2) + urban + livch + (1 | district), Contraception)
cm2 <- gfit(use ~ age + I(age^2) + urban + ch + (1 | district), Contraception)
cm3 <- gfit(use ~ age * ch + I(age^2) + urban + (1 | district), Contraception)
cm4 <- gfit(use ~ age * ch + I(age^2) + urban + (urban | district), Contraception)
sc_s <- fit(attain ~ verbal + sex + (1 | primary) + (1 | second), ScotsSec, FALSE); sc_l <- fit(attain ~ verbal + sex + (1 | primary) + (verbal | second), ScotsSec, FALSE)
out$likelihood_ratio_tests <- list(
  lrt("pastes_batch", "Pastes.csv", pa_null, pa_full, TRUE, "variance on the boundary under the null: chi2(1) is conservative, half of it is the usual rule"),
  lrt("sleepstudy_correlation", "sleepstudy.csv", ss_unc, ss_corr),
  lrt("sleepstudy_slope_variance", "sleepstudy.csv", ss_int, ss_unc, TRUE),
  lrt("scotssec_verbal_slope", "ScotsSec.csv", sc_s, sc_l),
  lrt("contraception_cm2_vs_cm1", "Contraception.csv", cm2, cm1),
  lrt("contraception_cm2_vs_cm3", "Contraception.csv", cm2, cm3),
  lrt("contraception_urban_slope", "Contraception.csv", cm3, cm4))

## ------------------------------------------------ profile likelihood intervals
# lme4's own (spline-interpolated) and, next to them, the end points found by root finding on the
# profile deviance: these are the accurate ones.
exact_ci <- function(m, level = .95) {
  q <- qchisq(level, 1); tol <- 1e-10
  dev2 <- lme4:::devfun2(m, useSc = TRUE, signames = FALSE)
  v0 <- attr(dev2, "optimum"); nv <- length(getME(m, "theta")) + 1; v0 <- v0[seq_len(nv)]; d0 <- dev2(unname(v0))
  lo <- ifelse(grepl("^cor", names(v0)), -1, 0); up <- ifelse(grepl("^cor", names(v0)), 1, Inf)
  pdev <- function(i, val) { if (nv == 1) return(dev2(val))
    best <- Inf; st <- unname(v0[-i])
    for (k in 1:2) { r <- nlminb(st, function(z) { full <- numeric(nv); full[i] <- val; full[-i] <- z; v <- try(dev2(full), silent = TRUE); if (inherits(v, "try-error") || !is.finite(v)) 1e9 else v },
             lower = lo[-i] + 1e-9, upper = up[-i] - 1e-9, control = list(rel.tol = 1e-15, x.tol = 1e-13, eval.max = 4000, iter.max = 3000)); best <- min(best, r$objective); st <- r$par }
    best - d0 }
  root <- function(f, start, dir, bound) { step <- dir; x <- start
    repeat { x1 <- if (is.finite(bound) && abs(x + step - start) >= abs(bound - start)) bound - 1e-9 * sign(step) else x + step
      if (f(x1) > q) break; if (is.finite(bound) && abs(x1 - bound) < 1e-8) return(bound); x <- x1; step <- step * 1.5 }
    uniroot(function(z) f(z) - q, sort(c(x, x1)), tol = tol)$root }
  vs <- t(vapply(seq_len(nv), function(i) { s <- 0.2 * max(abs(v0[i]), if (up[i] == 1) .3 else 0)
    c(root(function(z) pdev(i, z), v0[[i]], -s, lo[i]), root(function(z) pdev(i, z), v0[[i]], s, up[i])) }, c(0, 0)))
  rownames(vs) <- names(v0)
  dd <- update(m, devFunOnly = TRUE); env <- environment(dd); n <- nobs(m); th0 <- getME(m, "theta"); low <- getME(m, "lower")
  db <- function(j, val) { f <- function(th) { dd(th); pp <- env$pp; pw <- env$resp$wrss() + pp$sqrL(1)
      pp$ldL2() + n * (1 + log(2 * pi * (pw + (val - pp$beta(1)[j])^2 / pp$unsc()[j, j]) / n)) }
    min(vapply(list(th0, pmax(th0, .5)), function(s) nlminb(s, f, lower = low, control = list(rel.tol = 1e-15, x.tol = 1e-13, eval.max = 3000))$objective, 0)) - deviance(m) }
  b <- fixef(m); se <- sqrt(diag(as.matrix(vcov(m))))
  bs <- t(vapply(seq_along(b), function(j) c(root(function(z) db(j, z), b[[j]], -se[[j]], -Inf), root(function(z) db(j, z), b[[j]], se[[j]], Inf)), c(0, 0)))
  rownames(bs) <- names(b); rbind(vs, bs)
}
ci <- function(id, data, m) timed(paste("profile", id), {
  pr <- profile(m, signames = FALSE); a <- confint(pr); ex <- exact_ci(m); stopifnot(identical(rownames(a), rownames(ex)))
  nm2 <- rownames(a); rows <- lapply(seq_along(nm2), function(i) list(parameter = nm2[i], lme4 = unname(a[i, ]), exact = unname(ex[i, ])))
  tab <- as.data.frame(pr)
  list(id = id, data = data, formula = form(m), criterion = "ML (lme4 profiles the ML deviance, also for a REML fit)", level = .95,
       parameter_names = "sd_a|g: standard deviation; cor_a.b|g: correlation; sigma: residual sd", intervals = rows,
       variances_exact = { k <- grepl("^sd_|^sigma$", rownames(ex)); lapply(which(k), function(i) list(parameter = sub("^sd_", "var_", sub("^sigma$", "sigma^2", rownames(ex)[i])), exact = unname(ex[i, ])^2)) },
       profile_table = list(columns = I(names(tab)), rows = lapply(seq_len(nrow(tab)), function(i) lapply(tab[i, ], function(x) if (is.factor(x)) as.character(x) else x)))) })
dy_ml <- fit(Yield ~ 1 + (1 | Batch), Dyestuff, FALSE)
out$profile_confint <- list(ci("dyestuff", "Dyestuff.csv", dy_ml), ci("sleepstudy_slope", "sleepstudy.csv", ss_corr), ci("sleepstudy_two_terms", "sleepstudy.csv", ss_unc))

## ------------------------------------------------ parametric bootstrap and exact tests of a variance
NS <- 2000; SEED <- 20240501
boot <- function(id, data, large, small, REML) timed(paste("bootstrap", id, REML), {
  crit <- function(m) -2 * as.numeric(logLik(m)); obs <- crit(small) - crit(large)
  set.seed(SEED); sims <- simulate(small, nsim = NS, seed = SEED)
  st <- vapply(sims, function(y) suppressMessages(suppressWarnings(crit(refit(small, y)) - crit(refit(large, y)))), 0)
  st <- pmax(st, 0); k <- sum(st >= obs); p <- (k + 1) / (NS + 1)
  list(id = id, data = data, criterion = if (REML) "REML" else "ML", null = form(small), alternative = form(large), statistic = obs, nsim = NS, seed = SEED,
       n_exceeding = k, p = p, mc_se = sqrt(p * (1 - p) / NS), share_of_zero_statistics = mean(st < 1e-6), statistic_quantiles = as.list(quantile(st, c(.5, .75, .9, .95, .99)))) })
dflt <- function(f, d, REML) suppressMessages(eval(substitute(lme4::lmer(F_, D_, REML = R_), list(F_ = f, D_ = substitute(d), R_ = REML)), globalenv()))
pl <- dflt(strength ~ 1 + (1 | batch) + (1 | sample), Pastes, FALSE); ps <- dflt(strength ~ 1 + (1 | sample), Pastes, FALSE)
plr <- dflt(strength ~ 1 + (1 | batch) + (1 | sample), Pastes, TRUE); psr <- dflt(strength ~ 1 + (1 | sample), Pastes, TRUE)
set.seed(SEED)                                   # pbkrtest 0.5.2 ignores its seed argument
pb <- timed("PBmodcomp", suppressWarnings(suppressMessages(PBmodcomp(pl, ps, nsim = NS, cl = 1))))
pbs <- function(x) lapply(split(as.data.frame(x$test), rownames(x$test)), function(r) as.list(r))
sl <- dflt(Reaction ~ Days + (Days | Subject), sleepstudy, FALSE); su <- dflt(Reaction ~ Days + (1 | Subject) + (0 + Days | Subject), sleepstudy, FALSE)
out$parametric_bootstrap <- list(
  pbkrtest = list(id = "pastes_batch", data = "Pastes.csv", criterion = "ML", call = "set.seed(20240501); PBmodcomp(large, small, nsim = 2000, cl = 1)", test = pbs(pb), n_samples = unname(pb$samples[1]), n_used = unname(pb$samples[2]), n_extreme = unname(pb$n.extreme),
                  note = "pbkrtest drops the samples whose statistic is not positive, so under a variance on the boundary its p-value is conditional on a positive statistic, about twice the usual bootstrap p-value of own_loop, where every sample counts: use own_loop as the target"),
  own_loop = list(boot("pastes_batch", "Pastes.csv", pl, ps, FALSE), boot("pastes_batch", "Pastes.csv", plr, psr, TRUE),
                  boot("sleepstudy_correlation", "sleepstudy.csv", sl, su, FALSE)))
rlr <- function(id, data, test, x, nsim, note) list(id = id, data = data, test = test, statistic = unname(x$statistic), p = unname(x$p.value),
  nsim = nsim, mc_se = sqrt(max(x$p.value, 1 / nsim) * (1 - x$p.value) / nsim), note = note)
N <- 1e6
dy <- dflt(Yield ~ 1 + (1 | Batch), Dyestuff, TRUE); dym <- dflt(Yield ~ 1 + (1 | Batch), Dyestuff, FALSE); dy0 <- lm(Yield ~ 1, Dyestuff)
sA <- dflt(Reaction ~ Days + (1 | Subject) + (0 + Days | Subject), sleepstudy, TRUE); s0 <- dflt(Reaction ~ Days + (1 | Subject), sleepstudy, TRUE); s1 <- dflt(Reaction ~ Days + (0 + Days | Subject), sleepstudy, TRUE)
pb1 <- dflt(strength ~ 1 + (1 | batch), Pastes, TRUE)
F_dy <- anova(lm(Yield ~ Batch, Dyestuff))
out$exact_variance_tests <- timed("RLRsim", list(
  rlr("dyestuff_batch", "Dyestuff.csv", "exactRLRT(m)", exactRLRT(dy, nsim = N, seed = SEED), N, "restricted likelihood ratio, (1 | Batch) against lm"),
  rlr("dyestuff_batch", "Dyestuff.csv", "exactLRT(m, m0)", exactLRT(dym, dy0, nsim = N, seed = SEED), N, "ML likelihood ratio, (1 | Batch) against lm"),
  rlr("sleepstudy_slope", "sleepstudy.csv", "exactRLRT(m, mA, m0)", exactRLRT(s1, sA, s0, nsim = N, seed = SEED), N, "slope variance in (1 | Subject) + (0 + Days | Subject); the observed statistic is far beyond every simulated one"),
  rlr("pastes_batch", "Pastes.csv", "exactRLRT(m, mA, m0)", exactRLRT(pb1, plr, psr, nsim = N, seed = SEED), N, "batch variance in (1 | batch) + (1 | sample); RLRsim's approximation for more than one variance component"),
  list(id = "dyestuff_batch", data = "Dyestuff.csv", test = "one-way analysis of variance F", statistic = F_dy$`F value`[1], df = c(F_dy$Df[1], F_dy$Df[2]), p = F_dy$`Pr(>F)`[1])))

## ------------------------------------------------ Satterthwaite and Kenward-Roger
mk <- function(f, d) suppressMessages(eval(substitute(lmerTest::lmer(F_, D_, REML = TRUE, control = ctl), list(F_ = f, D_ = d)), globalenv()))
ddf <- function(id, data, f) timed(paste("ddf", id), {
  m <- mk(f, as.name(sub(".csv", "", data, fixed = TRUE)))
  tab <- function(x) lapply(setNames(seq_len(nrow(x)), rownames(x)), function(i) as.list(setNames(as.numeric(x[i, ]), c("estimate", "se", "df", "t", "p"))))
  an <- function(x) lapply(setNames(seq_len(nrow(x)), rownames(x)), function(i) as.list(setNames(as.numeric(x[i, ]), c("sum_sq", "mean_sq", "num_df", "den_df", "F", "p"))))
  kr <- as.matrix(vcovAdj(m))
  o <- list(id = id, data = data, formula = form(m), criterion = "REML",
    satterthwaite = tab(coef(summary(m, ddf = "Satterthwaite"))), kenward_roger = tab(coef(summary(m, ddf = "Kenward-Roger"))), kenward_roger_vcov = mat(kr))
  if (length(attr(terms(m), "term.labels"))) { o$anova_type3_satterthwaite <- an(anova(m, type = 3, ddf = "Satterthwaite")); o$anova_type3_kenward_roger <- an(anova(m, type = 3, ddf = "Kenward-Roger")) }
  o })
out$denominator_df <- list(
  ddf("dyestuff", "Dyestuff.csv", Yield ~ 1 + (1 | Batch)),
  ddf("sleepstudy_slope", "sleepstudy.csv", Reaction ~ Days + (Days | Subject)),
  ddf("sleepstudy_intercept", "sleepstudy.csv", Reaction ~ Days + (1 | Subject)),
  ddf("penicillin", "Penicillin.csv", diameter ~ 1 + (1 | plate) + (1 | sample)),
  ddf("cake_main_effects", "cake.csv", angle ~ recipe + temp + (1 | recipe:replicate)),
  ddf("music_intercept", "musicdata.csv", na ~ perform_type + (1 | id)),
  ddf("machines_intercept", "Machines.csv", score ~ Machine + (1 | Worker)),
  ddf("scotssec_intercepts", "ScotsSec.csv", attain ~ verbal + sex + (1 | primary) + (1 | second)))

## ------------------------------------------------ ICC and R2 (Nakagawa)
r2 <- function(id, data, m) {
  g <- insight::get_variance(m); i <- performance::icc(m); r <- performance::r2_nakagawa(m)
  list(id = id, data = data, formula = form(m), criterion = if (inherits(m, "glmerMod")) "Laplace" else if (isREML(m)) "REML" else "ML",
       var_fixed = unname(g$var.fixed), var_random = unname(g$var.random), var_residual = unname(g$var.residual), var_distribution = unname(g$var.distribution),
       icc_adjusted = i$ICC_adjusted, icc_unadjusted = i$ICC_unadjusted, r2_conditional = unname(r$R2_conditional), r2_marginal = unname(r$R2_marginal)) }
out$icc_r2 <- list(
  r2("dyestuff", "Dyestuff.csv", fit(Yield ~ 1 + (1 | Batch), Dyestuff)),
  r2("sleepstudy_slope", "sleepstudy.csv", fit(Reaction ~ Days + (Days | Subject), sleepstudy)),
  r2("sleepstudy_intercept", "sleepstudy.csv", fit(Reaction ~ Days + (1 | Subject), sleepstudy)),
  r2("penicillin", "Penicillin.csv", fit(diameter ~ 1 + (1 | plate) + (1 | sample), Penicillin)),
  r2("contraception_cm2", "Contraception.csv", cm2), r2("contraception_cm4_urban_slope", "Contraception.csv", cm4))

## ------------------------------------------------ estimated marginal means
emm <- function(id, data, m, spec) {
  one <- function(df) { e <- emmeans(m, as.formula(paste("~", spec)), lmer.df = df)
    rows <- function(x) { x <- as.data.frame(x); lapply(seq_len(nrow(x)), function(i) lapply(x[i, ], function(v) if (is.factor(v)) as.character(v) else v)) }
    list(means = rows(summary(e, level = .95)), pairs_tukey = rows(summary(pairs(e), infer = TRUE)), pairs_unadjusted = rows(summary(pairs(e), infer = TRUE, adjust = "none"))) }
  list(id = id, data = data, formula = form(m), specs = spec, level = .95, kenward_roger = one("kenward-roger"), satterthwaite = one("satterthwaite"), asymptotic = one("asymptotic")) }
ck <- mk(angle ~ recipe + temp + (1 | recipe:replicate), quote(cake)); mc <- mk(score ~ Machine + (1 | Worker), quote(Machines))
out$emmeans <- timed("emmeans", list(emm("cake_recipe", "cake.csv", ck, "recipe"), emm("machines", "Machines.csv", mc, "Machine")))

## ------------------------------------------------ predictions
sr <- fit(Reaction ~ Days + (Days | Subject), sleepstudy)
nd <- data.frame(Subject = c("308", "308", "308", "309", "372", "999", "999"), Days = c(0, 5, 12, 4.5, 9, 0, 5))
cn <- Contraception[c(1, 500, 1934), c("district", "age", "urban", "ch")]; cnd <- lapply(cn, function(v) if (is.factor(v)) as.character(v) else v)
out$predict <- list(
  list(id = "sleepstudy_slope", data = "sleepstudy.csv", formula = form(sr), criterion = "REML", newdata = list(Subject = nd$Subject, Days = nd$Days),
       note = "Subject 999 is new: with allow.new.levels = TRUE it gets the population prediction",
       re_form_NA = unname(predict(sr, nd, re.form = NA)), re_form_NULL = unname(predict(sr, nd, allow.new.levels = TRUE)),
       re_form_intercepts_only = unname(predict(sr, nd, re.form = ~(1 | Subject), allow.new.levels = TRUE)),
       without_allow_new_levels = "error: new levels detected in newdata"),
  list(id = "contraception_cm2", data = "Contraception.csv", formula = form(cm2), criterion = "Laplace", rows_of_the_csv_1based = c(1, 500, 1934), newdata = cnd,
       link_re_form_NA = unname(predict(cm2, cn, re.form = NA)), link_re_form_NULL = unname(predict(cm2, cn)),
       response_re_form_NA = unname(predict(cm2, cn, re.form = NA, type = "response")), response_re_form_NULL = unname(predict(cm2, cn, type = "response"))))

pk <- c("lme4", "lmerTest", "pbkrtest", "RLRsim", "performance", "insight", "emmeans")
m <- list(script = "make_inference.R", R = R.version.string, packages = as.list(setNames(vapply(pk, function(p) as.character(packageVersion(p)), ""), pk)), data_dir = DATA,
          notes = list(levels = "as in lme4.json; every label column is categorical, treatment coding, first level (numeric or alphabetical order; ScotsSec sex: M, F) is the reference",
                       simulated = "parametric_bootstrap and exact_variance_tests are simulation results: compare within a few mc_se",
                       r2 = "Nakagawa R2 and ICC: random slopes enter through the mean random-effect variance (Johnson 2014); distribution variance pi^2/3 for the logit link"))
js <- function(x) as.character(toJSON(x, digits = NA, auto_unbox = TRUE, null = "null", na = "null"))
writeLines(c(paste0('{"meta": ', js(m), ","), paste(vapply(names(out), function(k) paste0('"', k, '": ', js(out[[k]])), ""), collapse = ",\n"), "}"), "inference.json", useBytes = TRUE)
cat("written inference.json\n")
