# Helpers of make_lme4.R and make_lme4_more.R: read the CSV files, fit with lme4 to tight convergence, collect results.
#
# Each model is fitted twice: once with lme4's default control (only its time and its criterion are
# kept) and once with `tight()`, an optimizer that takes the best of bobyqa and nlminb and then takes
# Newton steps on Richardson finite differences, so that theta (and, for a GLMM, the fixed effects)
# are converged to about 1e-8 of a standard error. With N_STARTS > 1 the tight fit also starts from
# that many other places, for criteria that may have more than one minimum.
suppressMessages({library(lme4); library(jsonlite)})
options(warn = 1, contrasts = c("contr.treatment", "contr.poly"))
if (!exists("DATA")) DATA <- "../../src/ranef/data"
if (!exists("N_STARTS")) N_STARTS <- 0

## ---------------------------------------------------------------- reading the CSV files
# `levels`: named list, column -> levels in the order used (every column named becomes a factor).
read_data <- function(file, levels, dir = DATA) {
  d <- read.csv(file.path(dir, file), stringsAsFactors = FALSE, na.strings = c("NA", ""),
                colClasses = NA, check.names = FALSE)
  for (v in names(levels)) {
    raw <- as.character(d[[v]])
    lv <- levels[[v]]
    if (is.null(lv) || identical(lv, "auto")) lv <- auto_levels(raw)
    stopifnot(all(na.omit(raw) %in% lv))
    d[[v]] <- factor(raw, levels = lv)
  }
  d
}
# numeric labels in numeric order, other labels in C-locale alphabetical order
auto_levels <- function(x) {
  u <- unique(na.omit(x)); num <- suppressWarnings(as.numeric(u))
  if (!anyNA(num)) u[order(num)] else sort(u, method = "radix")
}

## ---------------------------------------------------------------- the optimizer
steps <- function(fn, x, f0, target = 2e-3) {   # h_i with a second difference of about `target`
  h <- pmax(abs(x), 1e-2) * 1e-2
  for (i in seq_along(x)) for (k in 1:60) {
    e <- replace(numeric(length(x)), i, h[i])
    dd <- (fn(x + e) + fn(x - e)) / 2 - f0
    if (!is.finite(dd) || dd > 4 * target) h[i] <- h[i] / 3
    else if (dd < target / 4) { if (h[i] > 0.3 * max(1, abs(x[i]))) break; h[i] <- h[i] * 2 }
    else break
  }
  h
}
grad_r <- function(fn, x, h) {                  # central differences, Richardson, 3 levels
  vapply(seq_along(x), function(i) {
    d <- vapply(c(1, .5, .25), function(s) {
      e <- replace(numeric(length(x)), i, s * h[i]); (fn(x + e) - fn(x - e)) / (2 * s * h[i]) }, 0)
    d1 <- (4 * d[2:3] - d[1:2]) / 3; (16 * d1[2] - d1[1]) / 15 }, 0)
}
hess_r <- function(fn, x, h, levels = 1) {      # central second differences; Richardson if levels = 2
  H1 <- function(h) {
    n <- length(x); H <- matrix(0, n, n); f0 <- fn(x)
    E <- function(i, a) replace(numeric(n), i, a)
    for (i in 1:n) { H[i, i] <- (fn(x + E(i, h[i])) - 2 * f0 + fn(x - E(i, h[i]))) / h[i]^2
      if (i > 1) for (j in 1:(i - 1)) { a <- E(i, h[i]); b <- E(j, h[j])
        H[i, j] <- H[j, i] <- (fn(x + a + b) - fn(x + a - b) - fn(x - a + b) + fn(x - a - b)) / (4 * h[i] * h[j]) } }
    H }
  if (levels == 1) H1(h) else (4 * H1(h / 2) - H1(h)) / 3
}
TRACE <- new.env()
# lme4's PIRLS stops when the penalized deviance has settled, with the determinant of the Laplace
# approximation still one step behind (an error of 1e-4 in logLik at the default tolerance, 1e-6 at the
# tightest that works). Restarting it from the converged linear predictor removes that lag.
sharp <- function(fn) {
  e <- environment(fn)
  if (!all(c("pp", "resp", "lp0", "baseOffset") %in% ls(e)) || !is(e$resp, "glmResp")) return(fn)
  function(x) { v <- fn(x)
    for (k in 1:6) { e$lp0 <- e$resp$eta - e$baseOffset; w <- fn(x); if (abs(w - v) <= 1e-12 * abs(w)) break; v <- w }
    w }
}
tight <- function(fn, par, lower, upper = rep(Inf, length(par)), control = list()) {
  fn <- sharp(fn)
  ff <- function(x) { v <- try(fn(x), silent = TRUE); if (inherits(v, "try-error") || !is.finite(v)) 1e10 else v }
  runs <- list()
  r <- try(minqa::bobyqa(par, ff, lower, upper,
             control = list(rhobeg = min(.95, max(.02, .2 * max(abs(par)))), rhoend = 1e-9, maxfun = 1e6)), TRUE)
  if (!inherits(r, "try-error")) runs$bobyqa <- list(par = r$par, f = r$fval)
  r <- try(nlminb(par, ff, lower = lower, upper = upper,
             control = list(rel.tol = 1e-15, x.tol = 1e-12, eval.max = 5000, iter.max = 3000)), TRUE)
  if (!inherits(r, "try-error")) runs$nlminb <- list(par = r$par, f = r$objective)
  set.seed(20)
  for (k in seq_len(N_STARTS)) {
    start <- ifelse(lower == 0, exp(runif(length(par), -3, 1.5)), runif(length(par), -1, 1))
    r <- try(nlminb(start, ff, lower = lower, upper = upper,
               control = list(rel.tol = 1e-15, x.tol = 1e-12, eval.max = 5000, iter.max = 3000)), TRUE)
    if (!inherits(r, "try-error")) runs[[paste0("nlminb_start", k)]] <- list(par = r$par, f = r$objective)
  }
  b <- runs[[which.min(vapply(runs, `[[`, 0, "f"))]]
  x <- b$par; f <- b$f
  # a boundary is a stationary point, for better or worse: leave it and come back, and go to it from nearby
  again <- function(x, hold = rep(FALSE, length(x))) {
    r <- try(nlminb(x[!hold], function(z) ff(replace(x, !hold, z)), lower = lower[!hold], upper = upper[!hold],
               control = list(rel.tol = 1e-15, x.tol = 1e-12, eval.max = 5000, iter.max = 3000)), TRUE)
    if (inherits(r, "try-error")) list(par = x, f = Inf) else list(par = replace(x, !hold, r$par), f = r$objective)
  }
  near <- is.finite(lower) & x - lower < 2e-2
  if (any(near)) { a <- again(ifelse(near, .2, x)); if (a$f < f - 1e-9) { x <- a$par; f <- a$f } }
  for (i in which(is.finite(lower) & x - lower < 2e-2 & x != lower)) if (length(x) > 1) {
    a <- again(replace(x, i, lower[i]), seq_along(x) == i); if (a$f <= f + 1e-9) { x <- a$par; f <- a$f } }
  # components sitting on the boundary are put exactly on it when that costs nothing
  low <- is.finite(lower) & x - lower < 1e-3 & x != lower
  if (any(low)) { y <- x; y[low] <- lower[low]; fy <- ff(y); if (fy <= f + 1e-6) { x <- y; f <- fy } }
  free <- !(is.finite(lower) & x == lower)
  gmax <- NA_real_; n_newton <- 0
  if (any(free)) {
    sub <- function(z) ff(replace(x, free, z))
    z <- x[free]; h <- steps(sub, z, f)
    H <- hess_r(sub, z, h)
    ev <- eigen(H, symmetric = TRUE)
    ok <- ev$values > 1e-6 * max(ev$values)
    Hinv <- ev$vectors[, ok, drop = FALSE] %*% (t(ev$vectors[, ok, drop = FALSE]) / ev$values[ok])
    g <- grad_r(sub, z, h)
    score <- function(g) sqrt(abs(drop(t(g) %*% Hinv %*% g)))   # distance to the optimum in s.e. units
    s <- score(g)
    for (it in 1:8) {
      if (s < 1e-10) break
      z1 <- z - drop(Hinv %*% g); g1 <- grad_r(sub, z1, h); s1 <- score(g1)
      if (!is.finite(s1) || s1 >= s || any(z1 < lower[free])) break
      z <- z1; g <- g1; s <- s1; n_newton <- it
    }
    x <- replace(x, free, z); f <- ff(x); gmax <- s
  }
  f_runs <- vapply(runs, `[[`, 0, "f"); extra <- grepl("start", names(runs))
  TRACE$last <- list(criterion = as.list(f_runs[!extra]),
                     best_start = names(runs)[which.min(vapply(runs, `[[`, 0, "f"))],
                     newton_steps = n_newton, criterion_final = f,
                     distance_to_optimum = gmax, on_boundary = as.list(which(!free)))
  if (any(extra)) TRACE$last$extra_starts <- list(n = sum(extra), n_at_best = sum(f_runs[extra] < f + 1e-6))
  f <- ff(x)                                    # leaves lme4's state converged at the answer
  list(par = x, fval = f, conv = 0, message = "tight", feval = NA)
}

## ---------------------------------------------------------------- one case
quiet <- function(expr) {                       # value + messages/warnings
  msgs <- character()
  v <- withCallingHandlers(expr,
    warning = function(w) { msgs <<- c(msgs, trimws(conditionMessage(w))); invokeRestart("muffleWarning") },
    message = function(m) { msgs <<- c(msgs, trimws(conditionMessage(m))); invokeRestart("muffleMessage") })
  list(value = v, msgs = msgs)
}
named <- function(x) as.list(x)
nm <- function(x) { x <- unname(x); if (length(x) == 1) I(x) else x }
mat <- function(m) { m <- unname(as.matrix(m)); attributes(m) <- list(dim = dim(m)); m }

ranef_terms <- function(fm) {
  vc <- VarCorr(fm); cn <- getME(fm, "cnms"); fl <- getME(fm, "flist"); asg <- attr(fl, "assign")
  re <- ranef(fm, condVar = TRUE); used <- list(); res <- list()
  for (k in seq_along(cn)) {
    g <- names(fl)[asg[k]]; f <- fl[[asg[k]]]
    pv <- attr(re[[g]], "postVar"); same <- which(asg == asg[k]); pos <- match(k, same)
    pvk <- if (is.list(pv)) pv[[pos]] else pv
    cols <- if (length(same) == 1) seq_along(cn[[k]]) else {
      off <- sum(lengths(cn[same[seq_len(pos - 1)]])); off + seq_along(cn[[k]]) }
    b <- as.matrix(re[[g]])[, cols, drop = FALSE]
    V <- vc[[k]]
    res[[k]] <- list(group = g, names = I(cn[[k]]), levels = I(rownames(re[[g]])),
      modes = mat(b), condVar = lapply(seq_len(dim(pvk)[3]), function(i) mat(pvk[, , i])))
  }
  res
}
varcomp <- function(fm, rename = NULL) {
  vc <- VarCorr(fm); cn <- getME(fm, "cnms"); fl <- getME(fm, "flist"); asg <- attr(fl, "assign")
  lapply(seq_along(cn), function(k) { V <- vc[[k]]; sd <- attr(V, "stddev"); C <- attr(V, "correlation")
    list(group = names(fl)[asg[k]], names = I(cn[[k]]), names_python = I(random_names_python(fm, k, rename)),
         sd = nm(sd), corr = mat(C), cov = mat(V)) })
}
## ---------------------------------------------------------------- names as formulaic gives them
# sexF -> sex[T.F], age:chY -> age:ch[T.Y], (Intercept) -> Intercept; a full set of indicators is sex[M], sex[F];
# sum, helmert and poly coding: C(f, contr.sum)[S.a], C(f, contr.helmert)[H.b], C(f, contr.poly)[.L]
variable_labels <- function(x, label, coding, full) {
  if (is.logical(x)) x <- factor(x)
  if (!is.factor(x)) return(if (is.matrix(x) && ncol(x) > 1) paste0(label, "[", seq_len(ncol(x)), "]") else label)
  l <- levels(x); m <- length(l)
  if (coding != "contr.treatment") label <- paste0("C(", label, ", ", coding, ")")
  inner <- if (full) l else switch(coding, contr.treatment = paste0("T.", l[-1]), contr.sum = paste0("S.", l[-m]),
    contr.helmert = paste0("H.", l[-1]), contr.poly = c(".L", ".Q", ".C", if (m > 4) paste0("^", 4:(m - 1)))[seq_len(m - 1)])
  paste0(label, "[", inner, "]")
}
matrix_names <- function(tt, frame, contrasts = NULL) {   # list(r = R's column names, python = ours)
  tt <- delete.response(tt); fac <- attr(tt, "factors")
  py <- if (attr(tt, "intercept") == 1) "Intercept"
  value <- function(name) if (name %in% names(frame)) frame[[name]] else eval(parse(text = name), frame)
  if (is.null(py) && length(fac)) {                       # the first factor of all gets all its indicators
    isf <- vapply(rownames(fac), function(name) is.factor(value(name)) || is.logical(value(name)), NA)
    first <- which(fac > 0 & isf, arr.ind = TRUE)
    if (nrow(first)) fac[first[1, 1], first[1, 2]] <- 2
  }
  for (j in seq_along(attr(tt, "term.labels"))) {
    v <- rownames(fac)[fac[, j] > 0]; part <- ""
    for (name in v) {
      coding <- if (is.null(contrasts[[name]])) "contr.treatment" else contrasts[[name]]
      own <- variable_labels(value(name), name, coding, fac[name, j] == 2)
      part <- as.vector(outer(part, own, function(a, b) ifelse(a == "", b, paste(a, b, sep = ":"))))
    }
    py <- c(py, part)
  }
  r <- colnames(model.matrix(tt, frame, contrasts.arg = contrasts[names(contrasts) %in% names(frame)]))
  stopifnot(length(r) == length(py)); list(r = r, python = py)
}
renamed <- function(x, rename) { for (k in names(rename)) x <- gsub(k, rename[[k]], x, fixed = TRUE); x }
fixed_names_python <- function(fm, contrasts, rename = NULL) {
  n <- matrix_names(terms(fm, fixed.only = TRUE), model.frame(fm), contrasts)
  renamed(n$python[match(names(fixef(fm)), n$r)], rename)
}
random_names_python <- function(fm, k, rename = NULL) {
  cn <- getME(fm, "cnms")[[k]]
  for (bar in findbars(formula(fm))) {
    n <- matrix_names(terms(as.formula(call("~", bar[[2]]))), model.frame(fm))
    if (identical(n$r, as.vector(cn))) return(renamed(n$python, rename))
  }
  stop("no term with the coefficients ", paste(cn, collapse = ", "))
}
theta_names <- function(fm) {
  cn <- getME(fm, "cnms"); fl <- getME(fm, "flist"); asg <- attr(fl, "assign")
  unlist(lapply(seq_along(cn), function(k) { c1 <- cn[[k]]; g <- names(fl)[asg[k]]
    unlist(lapply(seq_along(c1), function(j) vapply(j:length(c1), function(i)
      if (i == j) paste0(g, ".", c1[j]) else paste0(g, ".", c1[i], ".", c1[j]), "")))  }))
}
# Adaptive Gauss-Hermite log-likelihood, on the absolute scale, for one scalar random intercept.
gh <- function(n) { i <- seq_len(n - 1); J <- matrix(0, n, n); J[cbind(i, i + 1)] <- J[cbind(i + 1, i)] <- sqrt(i / 2)
  e <- eigen(J, symmetric = TRUE); list(x = e$values, w = sqrt(pi) * e$vectors[1, ]^2) }
agq_loglik <- function(fm, k) {
  y <- getME(fm, "y"); X <- getME(fm, "X"); b <- getME(fm, "beta"); th <- getME(fm, "theta")
  w <- weights(fm, type = "prior"); off <- getME(fm, "offset"); g <- getME(fm, "flist")[[1]]
  fam <- stats::family(fm); eta0 <- drop(X %*% b) + off; q <- gh(k)
  dens <- function(eta, i) { mu <- fam$linkinv(eta)
    switch(fam$family, binomial = dbinom(round(w[i] * y[i]), w[i], mu, log = TRUE), poisson = dpois(y[i], mu, log = TRUE)) }
  sum(vapply(split(seq_along(y), g), function(i) {
    h <- function(u) sum(dens(eta0[i] + th * u, i)) + dnorm(u, log = TRUE)
    o <- optimize(h, c(-8, 8), maximum = TRUE, tol = 1e-10); m <- o$maximum
    e <- 1e-3; s <- 1 / sqrt(-(h(m + e) - 2 * h(m) + h(m - e)) / e^2)
    v <- vapply(q$x, function(x) h(m + sqrt(2) * s * x) + x^2, 0); M <- max(v)
    M + log(sum(q$w * exp(v - M))) + log(sqrt(2) * s) }, 0))
}

run_case <- function(id, file, formula, levels, family = NULL, REML = NULL, nAGQ = 1, weights = NULL, offset = NULL,
                     derived = NULL, contrasts = NULL, note = NULL, python = NULL, n_ranef = Inf, prep = NULL,
                     control_extra = list(), dir = NULL, ordered = NULL, rename = NULL) {
  t00 <- proc.time()[[3]]
  d <- read_data(file, levels, if (is.null(dir)) DATA else dir); if (!is.null(prep)) d <- prep(d)
  f <- as.formula(formula); environment(f) <- environment()
  lmm <- is.null(family)
  args <- list(formula = f, data = d)
  if (!is.null(contrasts)) args$contrasts <- contrasts
  if (!is.null(weights)) { d$.w <- eval(parse(text = weights), d); args$data <- d; args$weights <- quote(.w) }
  if (!is.null(offset)) { d$.o <- eval(parse(text = offset), d); args$data <- d; args$offset <- quote(.o) }
  if (lmm) {
    args$REML <- REML
    t1 <- system.time(q0 <- quiet(do.call(lmer, args)))[[3]]
    args$control <- do.call(lmerControl, c(list(optimizer = tight, calc.derivs = TRUE), control_extra))
    t2 <- system.time(q1 <- quiet(do.call(lmer, args)))[[3]]
  } else {
    args$family <- family; args$nAGQ <- nAGQ
    t1 <- system.time(q0 <- quiet(do.call(glmer, args)))[[3]]
    args$control <- do.call(glmerControl, c(list(optimizer = list("bobyqa", tight), tolPwrss = 1e-13, calc.derivs = TRUE), control_extra))
    t2 <- system.time(q1 <- quiet(do.call(glmer, args)))[[3]]
  }
  fm <- q1$value; fm0 <- q0$value; tr <- TRACE$last
  X <- getME(fm, "X"); p <- ncol(X); th <- getME(fm, "theta"); fe <- fixef(fm)
  V <- suppressWarnings(as.matrix(vcov(fm, use.hessian = FALSE))); ll <- logLik(fm)
  o <- list(id = id, data = file, formula = formula)
  o$data_dir <- dir; o$python <- python
  o$family <- if (lmm) "gaussian" else stats::family(fm)$family
  o$link <- if (lmm) "identity" else stats::family(fm)$link
  o$method <- if (lmm) (if (REML) "REML" else "ML") else if (nAGQ == 1) "Laplace" else "AGQ"
  o$REML <- if (lmm) REML else NULL
  o$nAGQ <- if (lmm) NULL else nAGQ
  o$contrasts <- if (is.null(contrasts)) "treatment (first entry of `levels` is the reference)" else contrasts
  o$levels <- lapply(Filter(is.factor, d[, intersect(names(d), names(levels)), drop = FALSE]), function(v) I(levels(v)))
  o$ordered <- if (!is.null(ordered)) I(ordered)
  o$derived <- derived; o$weights <- weights; o$offset <- offset; o$note <- note
  o$nobs <- nobs(fm); o$n_rows_in_file <- nrow(d)
  o$ngrps <- named(ngrps(fm))
  o$fixef_names <- I(as.character(names(fe))); o$fixef <- setNames(as.list(fe), as.character(names(fe)))
  o$fixef_names_python <- I(as.character(fixed_names_python(fm, contrasts, rename)))
  drp <- attr(getME(fm, "X"), "col.dropped"); if (!is.null(drp)) o$dropped_columns <- I(names(drp))
  o$vcov <- mat(V); o$se <- setNames(as.list(sqrt(diag(V))), as.character(names(fe)))
  if (!lmm) {
    dfun <- do.call(glmer, c(args[names(args) != "control"], list(control = args$control, devFunOnly = TRUE))); dfun <- sharp(dfun)
    z <- c(th, fe); lo <- c(getME(fm, "lower"), rep(-Inf, p))[seq_along(z)]
    free <- !(is.finite(c(getME(fm, "lower"), rep(-Inf, length(fe)))) & z == 0)
    sub <- function(v) dfun(replace(z, free, v)); f0 <- dfun(z)
    h <- steps(sub, z[free], f0, 2e-2); H <- hess_r(sub, z[free], h, 2)
    Vh <- 2 * solve(H); k <- sum(free[seq_along(th)]); Vh <- Vh[k + seq_along(fe), k + seq_along(fe), drop = FALSE]
    o$vcov_hessian <- mat(Vh); o$se_hessian <- setNames(as.list(sqrt(diag(Vh))), names(fe))
  }
  o$theta_names <- I(theta_names(fm)); o$theta <- nm(unname(th)); o$sigma <- if (lmm || stats::family(fm)$family == "Gamma") sigma(fm) else NULL
  o$varcomp <- varcomp(fm, rename)
  o$logLik <- as.numeric(ll); o$df <- attr(ll, "df")
  if (lmm) {
    if (REML) { o$REMLcrit <- REMLcrit(fm); o$deviance_ML_at_REML_estimate <- as.numeric(deviance(fm, REML = FALSE)) }
    else o$deviance <- as.numeric(deviance(fm))
  } else {
    o$minus2logLik <- -2 * as.numeric(ll); o$sum_sq_deviance_residuals <- as.numeric(deviance(fm))
    if (nAGQ > 1) {
      o$logLik_absolute <- agq_loglik(fm, nAGQ); o$logLik_absolute_50 <- agq_loglik(fm, 50)
    } else if (length(th) == 1 && length(getME(fm, "flist")) == 1 && stats::family(fm)$family %in% c("binomial", "poisson"))
      o$logLik_agq50_at_these_estimates <- agq_loglik(fm, 50)
  }
  o$AIC <- AIC(fm); o$BIC <- BIC(fm)
  o$isSingular <- isSingular(fm)
  r <- ranef_terms(fm)
  if (is.finite(n_ranef)) r <- lapply(r, function(t) { k <- seq_len(min(n_ranef, length(t$levels)))
    t$levels_total <- length(t$levels); t$levels <- I(t$levels[k]); t$modes <- t$modes[k, , drop = FALSE]; t$condVar <- t$condVar[k]; t })
  o$ranef <- r
  o$fitted5 <- unname(fitted(fm)[1:5])
  o$resid5 <- unname(residuals(fm, "response")[1:5])
  if (!lmm) { o$resid5_deviance <- unname(residuals(fm, "deviance")[1:5]); o$resid5_pearson <- unname(residuals(fm, "pearson")[1:5]) }
  o$convergence <- tr
  o$default_fit <- list(logLik = as.numeric(logLik(fm0)), theta = nm(unname(getME(fm0, "theta"))),
                        messages = I(unique(c(q0$msgs))))
  if (length(q1$msgs)) o$messages <- I(unique(q1$msgs))
  o$elapsed_s <- t1; o$elapsed_tight_s <- t2
  cat(sprintf("%-44s n=%6d crit-default=%+.2e dist=%.1e sing=%s  %.2fs / %.2fs (%.1fs)%s\n", id, o$nobs,
      as.numeric(logLik(fm0)) - as.numeric(ll), tr$distance_to_optimum, o$isSingular, t1, t2, proc.time()[[3]] - t00,
      if (length(q1$msgs)) paste("  [", paste(unique(q1$msgs), collapse = " | "), "]") else ""))
  o
}
meta <- function(script, extra = list()) c(list(
  script = script, R = R.version.string, lme4 = as.character(packageVersion("lme4")),
  data_dir = DATA), extra, list(
  fields = list(
    levels = "every categorical column of the model, levels in the order used; treatment coding, first level = reference; grouping factors are listed too (labels are strings even where they look like numbers)",
    varcomp = "one entry per random-effects term, in lme4's order (terms sorted by decreasing number of levels); sd, corr, cov are on the response/linear-predictor scale; sigma is the residual sd",
    theta = "relative Cholesky factor, lower triangle column by column per term: sigma * Lambda(theta) is the Cholesky factor of cov (sigma = 1 for binomial and poisson)",
    fixef_names_python = "the names that formulaic gives the same columns (Intercept, sex[T.F], age:ch[T.Y], f[a] in a full set of indicators, poly(x, 2)[1], C(f, contr.sum)[S.a], C(f, contr.helmert)[H.b], C(f, contr.poly)[.L]); in varcomp names_python",
    python = "the formula in this package's language where it differs from R's",
    data_dir = "where the CSV file lies, relative to this file; a case's own before that of meta",
    ordered = "columns that are ordered categories; contrasts says how R coded them",
    vcov = "covariance of the fixed effects at the estimated theta: sigma^2 (RX'RX)^-1; for a GLMM the same from the penalized least-squares factor at the estimates (lme4: vcov(fit, use.hessian = FALSE)); se is the root of its diagonal",
    vcov_hessian = "GLMM only: the (beta, beta) block of twice the inverse Hessian of -2 logLik in (theta, beta), what summary() of a glmer fit prints; lme4's own finite-difference Hessian is good to 3-4 digits, this one uses Richardson differences",
    logLik_absolute = "lme4's logLik, AIC and BIC for nAGQ > 1 leave out a constant (the saturated log-likelihood) and so are not comparable with nAGQ = 1; logLik_absolute is the log-likelihood on the absolute scale by this script's own adaptive Gauss-Hermite rule with the same number of points at these estimates, logLik_absolute_50 the same with 50 points; for nAGQ = 1 and one scalar term, logLik_agq50_at_these_estimates shows how far Laplace is from the integral",
    df = "number of parameters counted by logLik: fixed effects + length(theta) + 1 for sigma where there is one; AIC = -2 logLik + 2 df, BIC = -2 logLik + log(nobs) df (nobs = all rows, also for REML)",
    logLik = "REML: minus half REMLcrit, including the (n-p) log(2 pi) term; ML: -deviance/2; Laplace: absolute scale",
    ranef = "conditional modes by term: modes[level][coefficient]; condVar[level] = conditional covariance given theta, sigma AND beta (lme4 ranef(condVar=TRUE)): sigma^2 Lambda (L L')^-1 Lambda'",
    fitted5 = "first five fitted values on the response scale (conditional modes included)",
    resid5 = "first five y - fitted",
    isSingular = "lme4::isSingular with tol = 1e-4",
    convergence = "criterion reached by each optimizer, how many of the further starting points lead to the best one found (others end in another local minimum or at a boundary, where the derivative vanishes), and the remaining distance to the optimum in standard-error units after Newton steps",
    default_fit = "what lme4's default optimizer gives (for judging which digits a user of lme4 sees)",
    elapsed_s = "seconds of lme4's default fit, single thread, including formula parsing; information only")))
# shortest decimal that reads back as the same number
number <- function(x) { s <- sprintf("%.15g", x); long <- is.finite(x); long[long] <- as.numeric(s[long]) != x[long]
  s[long] <- sprintf("%.17g", x[long]); s[!is.finite(x)] <- "null"; s }
quoted <- function(x) vapply(x, function(s) as.character(toJSON(s, auto_unbox = TRUE)), "", USE.NAMES = FALSE)
json <- function(x) {
  if (is.null(x)) return("null")
  if (!length(x)) return(if (is.list(x) && !is.null(names(x))) "{}" else "[]")
  if (is.matrix(x)) return(paste0("[", paste(apply(x, 1, function(r) paste0("[", paste(number(r), collapse = ","), "]")), collapse = ","), "]"))
  if (is.list(x) && !is.null(names(x)))
    return(paste0("{", paste0(quoted(names(x)), ":", vapply(x, json, ""), collapse = ","), "}"))
  s <- if (is.list(x)) vapply(x, json, "") else if (is.character(x)) quoted(x) else
    if (is.logical(x)) ifelse(is.na(x), "null", tolower(x)) else number(as.numeric(x))
  if (length(s) == 1 && !is.list(x) && !inherits(x, "AsIs")) s else paste0("[", paste(s, collapse = ","), "]")
}
write_cases <- function(cases, file, m) {
  writeLines(c(paste0('{"meta": ', as.character(toJSON(m, auto_unbox = TRUE, pretty = TRUE)), ','), '"cases": [',
               paste(vapply(cases, json, ""), collapse = ",\n"), ']}'), file, useBytes = TRUE)
}
