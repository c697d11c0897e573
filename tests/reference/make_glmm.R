# Generalised models of all families fitted in R, each by an engine whose likelihood is the same:
#   lme4       canonical links, Laplace and adaptive Gauss-Hermite (ref_helpers.R)
#   glmmTMB    any other: the Laplace approximation with the observed information, exact gradients
#   direct     this script's own likelihood: no random effects at all, or adaptive Gauss-Hermite with 40
#              points for one random intercept, for densities and weights that neither of the two has
#   cd tests/reference && OMP_NUM_THREADS=1 Rscript make_glmm.R     (R >= 4.2, lme4 >= 1.1-31, glmmTMB >= 1.1.5)
# Writes glmm_more.json from the shipped CSV files and from data/glmm_*.csv (make_glmm_data.R). A pattern as
# argument runs the cases whose id it matches, and writes nothing.
source("ref_helpers.R")
suppressMessages({library(glmmTMB); library(MASS)})
ONLY <- commandArgs(TRUE)
cases <- list()
wanted <- function(id) !length(ONLY) || grepl(ONLY, id)
keep <- function(case) cases[[length(cases) + 1]] <<- case
auto <- function(...) sapply(c(...), function(v) "auto", simplify = FALSE)
LEVELS <- list(glmm_groups = auto("g", "h", "f"), glmm_pupils = auto("school", "class", "pupil", "item", "treat"),
               glmm_singular = auto("g"), glmm_few = auto("g"), cbpp = auto("herd", "period"),
               Contraception = auto("district", "use", "livch", "urban"), Orthodont = auto("Subject", "Sex"),
               sleepstudy = auto("Subject"), Penicillin = auto("plate", "sample"),
               ScotsSec = list(primary = "auto", second = "auto", sex = c("M", "F")))
folder <- function(data) if (startsWith(data, "glmm_")) "data" else DATA
levels_of <- function(data, formula) { l <- LEVELS[[data]]; l[names(l) %in% all.vars(as.formula(formula))] }

## ---------------------------------------------------------------- lme4
lme4_case <- function(id, data, formula, family, nAGQ = 1, ...) for (k in nAGQ) {
  own <- paste0("lme4_", id, if (k > 1) paste0("_agq", k))
  if (wanted(own)) keep(c(list(engine = "lme4"), run_case(own, paste0(data, ".csv"), formula, levels_of(data, formula),
                          family = family, nAGQ = k, n_ranef = 4, dir = folder(data), ...)))
}

## ---------------------------------------------------------------- what all other engines say
described <- function(id, engine, data, formula, family, link, d, weights = NULL, offset = NULL, note = NULL) {
  f <- as.formula(formula); fixed <- nobars(f)
  n <- matrix_names(terms(fixed), d)
  o <- list(id = id, engine = engine, data = paste0(data, ".csv"), data_dir = folder(data), formula = formula,
            family = family, link = link, nAGQ = 1)
  o$levels <- lapply(d[names(levels_of(data, formula))], function(v) I(levels(v)))
  o$weights <- weights; o$offset <- offset; o$note <- note; o$nobs <- nrow(d)
  o$fixef_names <- I(n$r); o$fixef_names_python <- I(n$python)
  o
}
finished <- function(o, ll, beta, V, psi, df) {
  o$fixef <- setNames(as.list(unname(beta)), o$fixef_names)
  if (!is.null(V)) { o$vcov_hessian <- mat(V); o$se_hessian <- setNames(as.list(sqrt(diag(V))), o$fixef_names) }
  o$parameters <- as.list(psi); o$logLik <- ll; o$df <- df
  o$AIC <- -2 * ll + 2 * df; o$BIC <- -2 * ll + log(o$nobs) * df
  keep(o)
  cat(sprintf("%-44s n=%5d logLik %.8f  grad %.1e  dist %.1e  %.2fs  %s\n", o$id, o$nobs, ll, o$max_gradient %||% NA, o$distance %||% NA,
              o$elapsed_s %||% NA, paste(names(psi), vapply(psi, signif, 0, 5), collapse = " ")))
}
`%||%` <- function(a, b) if (is.null(a)) b else a

## ---------------------------------------------------------------- glmmTMB
OURS <- c(nbinom2 = "negative_binomial", Gamma = "gamma")
tmb_case <- function(id, data, formula, family, weights = NULL, singular = FALSE, beta0 = NULL, note = NULL) {
  id <- paste0("tmb_", id); if (!wanted(id)) return(invisible())
  d <- read_data(paste0(data, ".csv"), levels_of(data, formula), folder(data))
  args <- list(as.formula(formula), data = d, family = family)
  if (!is.null(weights)) { d$.w <- d[[weights]]; args$data <- d; args$weights <- quote(.w) }
  if (!is.null(beta0)) args$start <- list(beta = beta0)
  t1 <- system.time(q <- quiet(do.call(glmmTMB, args)))[[3]]
  fm <- q$value; obj <- fm$obj; name <- family$family
  o <- described(id, "glmmTMB", data, formula, if (name %in% names(OURS)) OURS[[name]] else name, family$link, d, weights, note = note)
  o$family <- sub("_family", "", o$family)
  o$default_fit <- list(logLik = as.numeric(logLik(fm)), messages = I(unique(q$msgs)))
  # the best of several starts, then Newton steps
  start <- obj$par; set.seed(1); best <- list(par = fm$fit$par, objective = fm$fit$objective)
  control <- list(rel.tol = 1e-15, x.tol = 1e-12, eval.max = 3000, iter.max = 2000)
  for (x in list(fm$fit$par, start, fm$fit$par + rnorm(length(start), 0, .3))) {
    r <- suppressWarnings(try(nlminb(x, obj$fn, obj$gr, control = control), TRUE))
    if (!inherits(r, "try-error") && is.finite(r$objective) && r$objective < best$objective) best <- r
    r <- suppressWarnings(try(optim(best$par, obj$fn, obj$gr, method = "BFGS", control = list(reltol = 1e-16, maxit = 1000)), TRUE))
    if (!inherits(r, "try-error") && is.finite(r$value) && r$value < best$objective) best <- list(par = r$par, objective = r$value)
  }
  x <- best$par
  hessian <- function(x) { H <- numDeriv::jacobian(function(z) drop(obj$gr(z)), x); (H + t(H)) / 2 }
  if (!singular) for (k in 1:4) {
    g <- drop(obj$gr(x)); step <- try(solve(hessian(x), g), TRUE)
    if (inherits(step, "try-error") || max(abs(g)) < 1e-10) break
    if (max(abs(obj$gr(x - step))) >= max(abs(g))) break
    x <- x - step
  }
  ll <- -as.numeric(obj$fn(x)); o$max_gradient <- max(abs(obj$gr(x)))
  V <- NULL
  is_beta <- names(x) == "beta"
  if (!singular) { H <- hessian(x); V <- solve(H)[is_beta, is_beta, drop = FALSE]
    g <- drop(obj$gr(x)); o$distance <- sqrt(abs(drop(g %*% solve(H, g)))) }
  report <- obj$env$report(obj$env$last.par); parts <- obj$env$parList(x)
  terms <- fm$modelInfo$reTrms$cond; bars <- findbars(as.formula(formula))
  groups <- terms$flist; assign <- attr(groups, "assign")
  o$ngrps <- lapply(groups, nlevels)
  o$varcomp <- lapply(seq_along(terms$cnms), function(k) { cn <- terms$cnms[[k]]
    py <- NULL
    for (bar in bars) { m <- matrix_names(terms(as.formula(call("~", bar[[2]]))), d); if (identical(m$r, as.vector(cn))) py <- m$python }
    list(group = names(groups)[assign[k]], names = I(cn), names_python = I(py), sd = nm(report$sd[[k]]), corr = mat(report$corr[[k]])) })
  o$isSingular <- singular || any(unlist(report$sd) < 1e-4)
  # the dispersion parameter by its name in this package
  b <- if (length(parts$betad)) unname(parts$betad[1]) else NA
  psi <- switch(name, nbinom2 = list(shape = exp(b)), Gamma = list(sigma = exp(-b / 2)), beta = list(phi = exp(b)),
                gaussian = list(sigma = exp(b / 2)), list())
  o$elapsed_s <- t1
  finished(o, ll, parts$beta, V, psi, length(x))
}

## ---------------------------------------------------------------- a likelihood of its own
dig <- function(y, mu, lambda) .5 * (log(lambda) - log(2 * pi) - 3 * log(y)) - lambda * (y - mu)^2 / (2 * mu^2 * y)
DENSITIES <- list(   # log density of y with weight w, mean mu; psi as in this package
  binomial = function(y, mu, w, psi) dbinom(round(w * y), w, mu, log = TRUE),
  poisson = function(y, mu, w, psi) w * dpois(y, mu, log = TRUE),
  negative_binomial = function(y, mu, w, psi) w * dnbinom(y, mu = mu, size = psi[["shape"]], log = TRUE),
  gamma = function(y, mu, w, psi) dgamma(y, w / psi[["sigma"]]^2, scale = mu * psi[["sigma"]]^2 / w, log = TRUE),
  inverse_gaussian = function(y, mu, w, psi) dig(y, mu, w / psi[["sigma"]]^2),
  gaussian = function(y, mu, w, psi) dnorm(y, mu, psi[["sigma"]] / sqrt(w), log = TRUE),
  beta = function(y, mu, w, psi) w * dbeta(y, mu * psi[["phi"]], (1 - mu) * psi[["phi"]], log = TRUE),
  t = function(y, mu, w, psi) dt((y - mu) * sqrt(w) / psi[["sigma"]], psi[["nu"]], log = TRUE) + log(w) / 2 - log(psi[["sigma"]]))
PSI <- list(binomial = numeric(), poisson = numeric(), negative_binomial = c(shape = 2), gamma = c(sigma = .5), inverse_gaussian = c(sigma = .5),
            gaussian = c(sigma = 1), beta = c(phi = 5), t = c(sigma = 1, nu = 5))
inverse <- function(link) switch(link, "inverse_squared" = function(eta) 1 / sqrt(eta), cauchit = pcauchy, make.link(link)$linkinv)
direct_case <- function(id, data, formula, family, link, weights = NULL, offset = NULL, beta0 = NULL, note = NULL) {
  id <- paste0("direct_", id); if (!wanted(id)) return(invisible())
  d <- read_data(paste0(data, ".csv"), levels_of(data, formula), folder(data))
  f <- as.formula(formula); frame <- model.frame(nobars(f), d)
  X <- model.matrix(nobars(f), d); y <- model.response(frame); w <- if (is.null(weights)) rep(1, nrow(d)) else d[[weights]]
  if (is.matrix(y)) { w <- rowSums(y); y <- y[, 1] / w }
  off <- (model.offset(frame) %||% rep(0, nrow(d))) + if (is.null(offset)) 0 else d[[offset]]
  bars <- findbars(f); g <- if (length(bars)) d[[deparse(bars[[1]][[3]])]]
  linkinv <- inverse(link); density <- DENSITIES[[family]]; psi0 <- PSI[[family]]; p <- ncol(X); r <- length(psi0)
  logdens <- function(eta, psi) { v <- suppressWarnings(density(y, linkinv(eta), w, psi)); ifelse(is.finite(v), v, -1e8) }
  q <- gh(40); theta <- seq_len(as.integer(!is.null(g)))
  minus2 <- function(x) {
    psi <- as.list(exp(x[seq_len(r) + length(theta)])); names(psi) <- names(psi0)
    eta <- drop(X %*% x[length(theta) + r + seq_len(p)]) + off
    if (!length(theta)) return(-2 * sum(logdens(eta, psi)))
    s <- x[[1]]; i <- as.integer(g); m <- nlevels(g)
    h <- function(u) drop(rowsum(logdens(eta + s * u[i], psi), i)) + dnorm(u, log = TRUE)
    u <- numeric(m); e <- 1e-3
    for (k in 1:30) { up <- h(u + e); at <- h(u); down <- h(u - e)
      d2 <- pmin((up - 2 * at + down) / e^2, -.3); step <- pmax(pmin(-(up - down) / (2 * e) / d2, 1), -1); u <- u + step
      if (max(abs(step)) < 1e-6) break }
    sd <- 1 / sqrt(-d2)
    v <- vapply(q$x, function(z) h(u + sqrt(2) * sd * z) + z^2, numeric(m)); M <- apply(v, 1, max)
    -2 * sum(M + log(drop(exp(v - M) %*% q$w)) + log(sqrt(2) * sd))
  }
  start <- c(if (length(theta)) .5, log(psi0), beta0 %||% c(make.link(if (link == "inverse_squared") "1/mu^2" else link)$linkfun(mean(y)), rep(0, p - 1)))
  N_STARTS <<- 0
  t1 <- system.time(best <- tight(minus2, start, c(rep(0, length(theta)), rep(-Inf, r + p)))$par)[[3]]
  H <- hess_r(minus2, best, steps(minus2, best, minus2(best), 2e-2), 2)
  k <- length(theta) + r + seq_len(p)
  o <- described(id, "direct", data, formula, family, link, d, weights, offset, note); o$nAGQ <- if (length(theta)) 40 else 1
  if (length(theta)) { o$ngrps <- setNames(list(nlevels(g)), deparse(bars[[1]][[3]]))
    o$varcomp <- list(list(group = names(o$ngrps), names = I("(Intercept)"), names_python = I("Intercept"), sd = nm(best[[1]]), corr = mat(1))) }
  o$isSingular <- FALSE; o$distance <- TRACE$last$distance_to_optimum; o$elapsed_s <- t1
  psi <- as.list(exp(best[seq_len(r) + length(theta)])); names(psi) <- names(psi0)
  finished(o, -minus2(best) / 2, best[k], (2 * solve(H))[k, k, drop = FALSE], psi, length(best))
}

source("make_glmm_cases.R")
if (!length(ONLY)) write_cases(cases, "glmm_more.json", meta("make_glmm.R", list(glmmTMB = as.character(packageVersion("glmmTMB")))))
cat(length(cases), "cases\n")
