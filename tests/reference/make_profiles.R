# Profile likelihood intervals: lme4's own (interpolated, `lme4`), and their end points found by root finding on the
# profile deviance (`exact`: the ones to compare with). lme4 profiles the ML deviance.
#   cd tests/reference && OMP_NUM_THREADS=1 Rscript make_profiles.R     (R >= 4.2, lme4 >= 1.1-31, minqa, jsonlite)
# Writes profiles.json from the shipped CSV files and from data/*.csv. A pattern as argument runs the cases whose id
# it matches, and writes profiles_some.json.
source("ref_helpers.R")
ONLY <- commandArgs(TRUE)
LEVEL <- .95
Q <- qchisq(LEVEL, 1)
cases <- list()

## ---------------------------------------------------------------- the end points
# `pdev(value)`: rise of the profile deviance; from `start` in steps of `step` (signed) up to `bound`.
root <- function(pdev, start, step, bound) {
  x <- start; first <- start; y <- -Q
  repeat {
    beyond <- is.finite(bound) && abs(x + step - first) >= abs(bound - first)
    x1 <- if (beyond) bound - 1e-9 * sign(step) else x + step
    y1 <- pdev(x1) - Q
    if (y1 > 0) break
    if (beyond) return(bound)
    if (abs(x1) > 1e6 * max(1, abs(first))) return(NA)
    x <- x1; y <- y1; step <- step * 1.5
  }
  e <- rbind(c(x, y), c(x1, y1)); e <- e[order(e[, 1]), ]
  uniroot(function(z) pdev(z) - Q, e[, 1], f.lower = e[1, 2], f.upper = e[2, 2], tol = 1e-8 * max(abs(e[, 1])))$root
}
# The minimum of f over all but one of its arguments, starting from where the last one ended and from v0.
others <- function(f, v0, lower, upper, i, thorough = TRUE) {
  if (length(v0) == 1) return(f)
  memory <- new.env(); memory$st <- unname(v0[-i])
  function(value) {
    g <- function(z) { full <- numeric(length(v0)); full[i] <- value; full[-i] <- z
      if (!all(is.finite(full)) || any(abs(full) > 1e5 * pmax(1, abs(v0)))) return(1e9)   # lme4's state would not survive that
      v <- try(f(full), silent = TRUE); if (inherits(v, "try-error") || !is.finite(v)) 1e9 else v }
    best <- Inf
    for (st in c(list(memory$st), if (thorough) list(pmin(pmax(unname(v0[-i]), lower[-i] + .02), upper[-i] - .02))))
      for (k in seq_len(1 + thorough)) { r <- nlminb(st, g, lower = lower[-i] + 1e-9 * is.finite(lower[-i]), upper = upper[-i] - 1e-9 * is.finite(upper[-i]),
                                   control = list(rel.tol = 1e-15, x.tol = 1e-13, eval.max = 4000, iter.max = 3000))
        st <- r$par; if (r$objective < min(best, 1e8)) { best <- r$objective; memory$st <- st } }
    best
  }
}
limits <- function(f, v0, lower, upper, step, thorough = TRUE) {
  d0 <- f(unname(v0))
  t(vapply(seq_along(v0), function(i) {
    rise <- function() { p <- others(f, v0, lower, upper, i, thorough); function(z) p(z) - d0 }
    c(root(rise(), v0[[i]], -step[i], lower[i]), root(rise(), v0[[i]], step[i], upper[i]))
  }, c(0, 0)))
}
steps_of <- function(v0) 0.2 * pmax(abs(v0), .3)

exact_linear <- function(m) {
  dev2 <- lme4:::devfun2(m, useSc = TRUE, signames = FALSE)
  v0 <- attr(dev2, "optimum"); nv <- length(getME(m, "theta")) + 1; v0 <- v0[seq_len(nv)]
  cor <- grepl("^cor", names(v0))
  lo <- ifelse(cor, -1, ifelse(names(v0) == "sigma", .05 * v0, 0)); up <- ifelse(cor, 1, Inf)
  vs <- limits(dev2, v0, lo, up, steps_of(v0)); rownames(vs) <- names(v0)
  dd <- update(m, devFunOnly = TRUE); env <- environment(dd); n <- nobs(m); th0 <- getME(m, "theta"); low <- getME(m, "lower")
  lw <- if (is.null(weights(m))) 0 else sum(log(weights(m)))
  db <- function(j, val) { f <- function(th) { dd(th); pp <- env$pp; pw <- env$resp$wrss() + pp$sqrL(1)
      pp$ldL2() + n * (1 + log(2 * pi * (pw + (val - pp$beta(1)[j])^2 / pp$unsc()[j, j]) / n)) - lw }
    min(vapply(list(th0, pmax(th0, .5), pmax(th0, .1)), function(s) nlminb(s, f, lower = low, control = list(rel.tol = 1e-15, x.tol = 1e-13, eval.max = 3000))$objective, 0)) - deviance(m) }
  b <- fixef(m); se <- sqrt(diag(as.matrix(vcov(m))))
  bs <- t(vapply(seq_along(b), function(j) c(root(function(z) db(j, z), b[[j]], -se[[j]], -Inf), root(function(z) db(j, z), b[[j]], se[[j]], Inf)), c(0, 0)))
  rownames(bs) <- names(b)
  rbind(vs, bs)
}
# One term of one or two coefficients: v = (sd, cor, sd, beta) or (sd, beta)
exact_glmm <- function(m, dd) {
  th <- getME(m, "theta"); b <- fixef(m); k <- if (length(th) == 1) 1 else 2
  f <- sharp(dd)
  to_theta <- if (k == 1) function(v) v else function(v) c(v[1], v[3] * v[2], v[3] * sqrt(1 - v[2]^2))
  nv <- length(th); dev <- function(v) f(c(to_theta(v[seq_len(nv)]), v[-seq_len(nv)]))
  s2 <- if (k == 2) sqrt(th[2]^2 + th[3]^2)
  names <- lme4:::profnames(m, signames = FALSE)[seq_len(nv)]
  v0 <- c(if (k == 1) th else c(th[1], th[2] / s2, s2), b)
  lo <- c(if (k == 1) 0 else c(0, -1, 0), rep(-Inf, length(b))); up <- c(if (k == 1) Inf else c(Inf, 1, Inf), rep(Inf, length(b)))
  se <- sqrt(diag(as.matrix(vcov(m))))
  step <- c(steps_of(v0[seq_len(nv)]), se)
  x <- limits(dev, v0, lo, up, step, thorough = FALSE); rownames(x) <- c(names, names(b)); x
}

## ---------------------------------------------------------------- cases
our_coef <- function(x) sub("^\\(Intercept\\)$", "Intercept", x)
our_name <- function(x) {                       # sd_a|g, cor_b.a|g, sigma, (Intercept)
  if (grepl("^sd_", x)) sub("^sd_(.*)\\|(.*)$", "sd_\\2[\\1]", sub("(Intercept)", "Intercept", x, fixed = TRUE))
  else if (grepl("^cor_", x)) sub("^cor_(.*)\\.(.*)\\|(.*)$", "corr_\\3[\\2, \\1]", sub("(Intercept)", "Intercept", x, fixed = TRUE))
  else our_coef(x)
}
one <- function(id, file, formula, levels, family = NULL, nAGQ = 1, weights = NULL, offset = NULL, shipped = TRUE, rows = NULL,
                rename = NULL, own = TRUE, python = NULL) {
  if (length(ONLY) && !grepl(ONLY, id)) return(invisible())
  t0 <- proc.time()[[3]]
  dir <- if (shipped) DATA else "data"
  d <- read_data(file, levels, dir); if (!is.null(rows)) d <- droplevels(d[seq_len(rows), ])
  if (!is.null(weights)) d$.w <- d[[weights]]
  if (!is.null(offset)) d$.o <- d[[offset]]
  d <<- d
  f <- as.formula(formula, env = globalenv())
  call <- list(formula = f, data = quote(d))
  if (!is.null(weights)) call$weights <- quote(.w)
  if (!is.null(offset)) call$offset <- quote(.o)
  if (is.null(family)) {
    m <- suppressMessages(eval(as.call(c(quote(lmer), call, REML = FALSE, control = quote(lmerControl(optimizer = tight))))))
    exact <- exact_linear(m)
  } else {
    call$family <- family; call$nAGQ <- nAGQ; call$control <- quote(glmerControl(optimizer = list("bobyqa", tight), tolPwrss = 1e-13))
    m <- suppressWarnings(suppressMessages(eval(as.call(c(quote(glmer), call)))))
    dd <- suppressWarnings(suppressMessages(eval(as.call(c(quote(glmer), call, devFunOnly = TRUE)))))
    exact <- exact_glmm(m, dd)
  }
  a <- if (own) try(suppressWarnings(suppressMessages(confint(profile(m, signames = FALSE), level = LEVEL))), silent = TRUE) else NULL
  ok <- is.matrix(a) && identical(rownames(a), rownames(exact))
  names <- vapply(rownames(exact), our_name, ""); if (!is.null(rename)) names[names %in% names(rename)] <- rename[names[names %in% names(rename)]]
  o <- list(id = id, data = file, formula = formula, family = if (is.null(family)) "gaussian" else family, link = stats::family(m)$link,
            nAGQ = if (is.null(family)) NULL else nAGQ, levels = lapply(Filter(is.factor, d[, intersect(names(d), names(levels)), drop = FALSE]), function(v) I(levels(v))),
            weights = weights, offset = offset, rows = rows, level = LEVEL, logLik = as.numeric(logLik(m)), isSingular = isSingular(m),
            intervals = lapply(seq_along(names), function(i) list(parameter = unname(names[i]), exact = unname(exact[i, ]), lme4 = if (ok) unname(a[i, ]) else NULL)))
  if (!shipped) o$data_dir <- "data"
  if (!is.null(python)) o$python <- python
  print(cbind(exact, if (ok) a), digits = 7)
  cat(sprintf("%-30s %.1fs\n", id, proc.time()[[3]] - t0))
  cases[[length(cases) + 1]] <<- o
}
auto <- function(...) sapply(c(...), function(v) "auto", simplify = FALSE)

one("dyestuff", "Dyestuff.csv", "Yield ~ 1 + (1 | Batch)", auto("Batch"))
one("sleepstudy_slope", "sleepstudy.csv", "Reaction ~ Days + (Days | Subject)", auto("Subject"))
one("sleepstudy_two_terms", "sleepstudy.csv", "Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)", auto("Subject"),
    rename = c("sd_Subject[Days]" = "sd_Subject_1[Days]"))
one("pastes_nested", "Pastes.csv", "strength ~ 1 + (1 | batch/cask)", auto("batch", "cask"))
one("penicillin_crossed", "Penicillin.csv", "diameter ~ 1 + (1 | plate) + (1 | sample)", auto("plate", "sample"))
one("sleepstudy_no_intercept", "sleepstudy.csv", "Reaction ~ 0 + Days + (0 + Days | Subject)", auto("Subject"))
one("orthodont_double_bar", "Orthodont.csv", "distance ~ age * Sex + (age || Subject)", auto("Subject", "Sex"))
one("machines_vectors", "Machines.csv", "score ~ Machine + (0 + Machine | Worker)", auto("Worker", "Machine"), own = FALSE)
one("weights_slope", "groups.csv", "y ~ x + (x | g)", auto("g"), weights = "w", offset = "off", shipped = FALSE)
one("dyestuff2_singular", "Dyestuff2.csv", "Yield ~ 1 + (1 | Batch)", auto("Batch"))
one("singular_tied", "singular.csv", "tied ~ x + (x | g)", auto("g"), shipped = FALSE, own = FALSE)
one("cbpp", "cbpp.csv", "cbind(incidence, size - incidence) ~ period + (1 | herd)", auto("herd", "period"), family = "binomial")
one("cbpp_agq", "cbpp.csv", "cbind(incidence, size - incidence) ~ period + (1 | herd)", auto("herd", "period"), family = "binomial", nAGQ = 9)
one("poisson_slope", "glmm_groups.csv", "count ~ x + (x | g)", auto("g"), family = "poisson", shipped = FALSE)
one("contraception_part", "Contraception.csv", "use ~ urban + (1 | district)", list(district = "auto", use = c("N", "Y"), urban = c("N", "Y")), family = "binomial", rows = 500)

if (length(cases)) write_cases(cases, if (length(ONLY)) "profiles_some.json" else "profiles.json", list(
  script = "make_profiles.R", R = R.version.string, lme4 = as.character(packageVersion("lme4")), data_dir = DATA,
  fields = list(
    intervals = "by parameter, as this package names them: `exact` by root finding on the profile deviance, the others minimised by nlminb from two starts; `lme4` are the limits of confint(profile(m)), interpolated; null where lme4 does not give them",
    bounds = "a limit of 0 (sd) or -1, 1 (correlation) is the end of the range, which the likelihood does not exclude",
    rows = "how many rows of the file were used, from the first")))
