# Variance components, ICC and R2 by performance (Nakagawa, Johnson & Schielzeth 2017), and rePCA by lme4.
#   cd tests/reference && OMP_NUM_THREADS=1 Rscript make_explained.R     (R >= 4.2, lme4, performance, insight, jsonlite, minqa)
# Writes explained.json from the shipped CSV files and from data/*.csv. Estimates need not be at the optimum: what is
# compared are functions of them. performance takes the mean response of a count from the null model, exp(beta) without
# half of the variance: it is stored as `mean`.
source("ref_helpers.R")
suppressMessages({library(performance); library(insight)})
auto <- function(...) sapply(c(...), function(v) "auto", simplify = FALSE)
cases <- list()
case <- function(id, file, formula, levels, family = NULL, shipped = TRUE, weights = NULL, offset = NULL, python = NULL, note = NULL,
                 nb = FALSE) {
  d <- read_data(file, levels[names(levels) != "row"], if (shipped) DATA else "data")
  if ("row" %in% names(levels)) d$row <- factor(seq_len(nrow(d)))
  if (!is.null(weights)) d$.w <- eval(parse(text = weights), d)
  if (!is.null(offset)) d$.o <- eval(parse(text = offset), d)
  assign(".d", d, globalenv())
  f <- as.formula(formula); environment(f) <- globalenv()
  extra <- c(if (!is.null(weights)) list(weights = quote(.w)), if (!is.null(offset)) list(offset = quote(.o)))
  m <- suppressMessages(suppressWarnings(
    if (nb) do.call(glmer.nb, list(f, quote(.d))) else
    if (is.null(family)) do.call(lmer, c(list(f, quote(.d)), extra)) else
    do.call(glmer, c(list(f, quote(.d), family = family), extra))))
  v <- suppressWarnings(get_variance(m, verbose = FALSE)); i <- suppressWarnings(icc(m))
  r <- suppressWarnings(r2_nakagawa(m))
  g <- suppressMessages(suppressWarnings(icc(m, by_group = TRUE)))
  name <- if (nb) "negative_binomial" else if (is.null(family)) "gaussian" else tolower(family$family)
  link <- if (is.null(family)) if (nb) "log" else "identity" else family$link
  mu <- if (name %in% c("poisson", "negative_binomial")) exp(fixef(suppressMessages(suppressWarnings(null_model(m))))[[1]])
  pca <- lapply(lme4::rePCA(m), function(x) list(sdev = I(x$sdev), rotation = mat(x$rotation)))
  o <- list(id = id, data = file, formula = formula, python = python, data_dir = if (shipped) DATA else "data", family = name, link = link,
    levels = lapply(d[, setdiff(names(levels), "row"), drop = FALSE], function(v) I(levels(v))), weights = weights, offset = offset, note = note,
    beta = I(unname(fixef(m))), covs = lapply(unname(VarCorr(m)), function(V) lapply(seq_len(nrow(V)), function(k) I(unname(V[k, ])))),
    sigma = sigma(m), shape = if (nb) getME(m, "glmer.nb.theta"), mean = mu,
    var_fixed = v$var.fixed, var_random = v$var.random, var_residual = v$var.residual, var_distribution = v$var.distribution,
    icc_adjusted = i$ICC_adjusted, icc_unadjusted = i$ICC_unadjusted, r2_marginal = unname(r$R2_marginal),
    r2_conditional = unname(r$R2_conditional), by_group = as.list(setNames(g$ICC, g$Group)), pca = pca)
  cases[[length(cases) + 1]] <<- o
  cat(sprintf("%-28s fixed %.5g random %.5g residual %.5g icc %.5f r2 %.5f %.5f %s\n", id, v$var.fixed, v$var.random, v$var.residual,
              i$ICC_adjusted, r$R2_marginal, r$R2_conditional, paste(names(o$by_group), collapse = " ")))
}
own <- function(...) case(..., shipped = FALSE)
l_gg <- auto("g", "h", "f"); l_gp <- auto("school", "class", "pupil", "item", "treat")
case("pastes_nested", "Pastes.csv", "strength ~ 1 + (1 | batch/cask)", auto("batch", "cask"))
case("penicillin", "Penicillin.csv", "diameter ~ 1 + (1 | plate) + (1 | sample)", auto("plate", "sample"))
case("orthodont_slopes", "Orthodont.csv", "distance ~ age * Sex + (age | Subject)", auto("Subject", "Sex"))
case("sleepstudy_double_bar", "sleepstudy.csv", "Reaction ~ Days + (Days || Subject)", auto("Subject"),
     note = "performance counts the first of the two terms of Subject only")
case("machines_slopes", "Machines.csv", "score ~ Machine + (Machine | Worker)", auto("Worker", "Machine"))
own("groups_offset", "groups.csv", "y ~ x + f + (x | g)", auto("g", "f"), offset = "off")
own("groups_weights", "groups.csv", "y ~ x + f + (x | g)", auto("g", "f"), weights = "w",
    note = "performance takes no notice of prior weights: its residual variance is sigma^2")
case("contraception", "Contraception.csv", "use ~ age + I(age^2) + urban + livch + (urban | district)",
     list(district = "auto", use = c("N", "Y"), livch = c("0", "1", "2", "3+"), urban = c("N", "Y")), binomial())
case("cbpp_probit", "cbpp.csv", "incidence/size ~ period + (1 | herd)", auto("herd", "period"), binomial("probit"), weights = "size",
     python = "I(incidence/size) ~ period + (1 | herd)")
own("cloglog", "glmm_groups.csv", "cloglog/trials ~ x + f + (1 | g)", l_gg, binomial("cloglog"), weights = "trials",
    python = "I(cloglog/trials) ~ x + f + (1 | g)")
own("poisson_log", "glmm_groups.csv", "count ~ x + f + (x | g)", l_gg, poisson())
own("poisson_crossed", "glmm_pupils.csv", "count ~ treat + x + (1 | pupil) + (1 | item)", l_gp, poisson())
own("poisson_sqrt", "glmm_groups.csv", "count ~ x + f + (1 | g)", l_gg, poisson("sqrt"))
own("poisson_observations", "glmm_groups.csv", "count ~ x + f + (1 | g) + (1 | row)", c(l_gg, auto("row")), poisson(),
    note = "a level for each row: the variance of `row` is overdispersion")
own("negative_binomial", "glmm_groups.csv", "nb ~ x + f + (1 | g)", l_gg, nb = TRUE)
own("gamma_log", "glmm_groups.csv", "gamma ~ x + f + (1 | g)", l_gg, Gamma("log"),
    note = "performance takes sigma^2, which is the delta method")
meta <- list(script = "make_explained.R", R = R.version.string, data_dir = DATA,
  packages = as.list(sapply(c("lme4", "performance", "insight"), function(p) as.character(packageVersion(p)))))
js <- function(x) as.character(toJSON(x, digits = NA, auto_unbox = TRUE, null = "null", na = "null"))
writeLines(c(paste0('{"meta": ', js(meta), ","), '"cases": [', paste(vapply(cases, js, ""), collapse = ",\n"), "]}"),
           "explained.json", useBytes = TRUE)
