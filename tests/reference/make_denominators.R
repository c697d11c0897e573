# Satterthwaite and Kenward-Roger degrees of freedom, adjusted covariances and F tests, by lmerTest and pbkrtest.
#   cd tests/reference && OMP_NUM_THREADS=1 Rscript make_denominators.R     (R >= 4.2, lme4, lmerTest, pbkrtest, minqa, jsonlite)
# Writes denominators.json from the shipped CSV files and from data/*.csv. pbkrtest takes no notice of prior weights:
# for weighted models the Kenward-Roger numbers are those of the same model without weights whose rows, of y, X and the
# columns of the random terms, are multiplied by the root of the weight.
N_STARTS <- 4
source("ref_helpers.R")
suppressMessages({library(lmerTest); library(pbkrtest)})
auto <- function(...) sapply(c(...), function(v) "auto", simplify = FALSE)
control <- lmerControl(optimizer = tight, check.rankX = "silent.drop.cols")
row_list <- function(x) lapply(seq_len(nrow(x)), function(i) I(unname(as.numeric(x[i, ]))))
coefs <- function(x) { x <- as.matrix(x); colnames(x) <- NULL
  list(estimate = I(x[, 1]), se = I(x[, 2]), df = I(x[, 3]), t = I(x[, 4]), p_value = I(x[, 5])) }
f_test <- function(x, scaling) list(f = x[["F value"]], df_num = x[["NumDF"]], df_den = x[["DenDF"]], p_value = x[["Pr(>F)"]],
                                    scaling = scaling)
plain <- function(x) { x <- lapply(x, unname); names(x) <- c("estimate", "se", "df", "t", "p_value"); x }

rooted <- function(f, d) {      # the same model without weights
  r <- sqrt(d$.w); parts <- lFormula(f, d, REML = TRUE); X <- parts$X * r
  e <- list2env(list(y = model.response(parts$fr) * r, X = X), parent = globalenv()); terms <- character()
  for (k in seq_along(parts$reTrms$cnms)) {
    g <- names(parts$reTrms$cnms)[k]; e[[paste0("g", k)]] <- parts$reTrms$flist[[g]]
    bar <- findbars(f)[[k]]; e[[paste0("Z", k)]] <- model.matrix(as.formula(paste("~", deparse(bar[[2]]))), d) * r
    terms <- c(terms, paste0("(0 + Z", k, " | g", k, ")")) }
  fw <- as.formula(paste("y ~ 0 + X +", paste(terms, collapse = " + "))); environment(fw) <- e
  lmer(fw, REML = TRUE, control = control)
}

cases <- list()
case <- function(id, file, formula, levels, tests = list(), REML = TRUE, weights = NULL, offset = NULL, shipped = TRUE, note = NULL,
                 python = NULL, kr = REML) {
  d <- read_data(file, levels, if (shipped) DATA else "data"); f <- as.formula(formula); environment(f) <- environment()
  args <- list(formula = f, data = d, REML = REML, control = control)
  if (!is.null(weights)) { d$.w <- eval(parse(text = weights), d); args$data <- d; args$weights <- quote(.w) }
  if (!is.null(offset)) { d$.o <- eval(parse(text = offset), d); args$data <- d; args$offset <- quote(.o) }
  assign(".d", args$data, globalenv()); args$data <- quote(.d); environment(args$formula) <- globalenv()
  m <- suppressMessages(suppressWarnings(do.call(lmerTest::lmer, args)))
  p <- length(fixef(m)); rows <- lapply(tests, function(t) if (is.matrix(t)) t else diag(p)[t, , drop = FALSE])
  if (p > 1) rows <- c(rows, list(outer(1:min(p, 3), 1:p, function(i, j) cos(i * j) / (1 + (i != j)))))   # some contrasts
  o <- list(id = id, data = file, formula = formula, data_dir = if (shipped) DATA else "data", family = "gaussian", link = "identity",
            python = python, REML = REML, weights = weights, offset = offset, note = note, n = nobs(m),
            levels = lapply(d[, names(levels), drop = FALSE], function(v) I(levels(v))), is_singular = isSingular(m),
            theta = I(unname(getME(m, "theta"))), sigma = sigma(m), fixef_names = I(names(fixef(m))))
  s <- as.data.frame(do.call(rbind, lapply(seq_len(p), function(j) contest1D(m, diag(p)[j, ], ddf = "Satterthwaite"))))
  o$satterthwaite <- coefs(s)
  if (length(rows)) o$contrasts <- lapply(rows, row_list)
  if (length(rows)) o$satterthwaite_tests <- lapply(rows, function(L) f_test(contestMD(m, L, ddf = "Satterthwaite"), 1))
  if (kr) {
    k <- if (is.null(weights)) m else suppressMessages(suppressWarnings(rooted(f, get(".d", globalenv()))))
    A <- vcovAdj(k); V <- vcov(k); b <- fixef(k)
    se <- sqrt(diag(as.matrix(A))); df <- vapply(seq_len(p), function(j) Lb_ddf(diag(p)[j, ], V, A), 0)
    o$kenward_roger <- list(estimate = I(unname(b)), se = I(unname(se)), df = I(df), t = I(unname(b / se)),
                            p_value = I(unname(2 * pt(-abs(b / se), df))))
    if (length(rows)) o$kenward_roger_tests <- lapply(rows, function(L) {
      s <- qr(t(L)); L <- t(qr.Q(s)[, seq_len(s$rank), drop = FALSE])      # rows that are not combinations of others
      x <- pbkrtest:::.KR_adjust(A, Phi = V, L, beta = b, betaH = 0)
      list(f = x$Fstat, df_num = x$ndf, df_den = x$ddf, p_value = x$p.value, scaling = x$F.scaling) })
    o$kenward_roger_vcov <- mat(A)
  }
  cases[[length(cases) + 1]] <<- o
  cat(sprintf("%-36s p=%2d sing=%-5s S df %s | KR df %s\n", id, p, o$is_singular, paste(signif(o$satterthwaite$df, 5), collapse = " "),
              paste(signif(as.numeric(o$kenward_roger$df), 5), collapse = " ")))
}
own <- function(...) case(..., shipped = FALSE)

l_sleep <- auto("Subject"); l_groups <- auto("g", "f"); l_sing <- auto("g", "h"); l_mach <- auto("Worker", "Machine")
l_orth <- auto("Subject", "Sex"); l_cake <- auto("replicate", "recipe", "temperature"); l_oats <- auto("Block", "Variety")
l_pupils <- auto("school", "class", "pupil", "item", "treat"); l_teach <- auto("s", "d", "dept", "service")

case("penicillin_ml", "Penicillin.csv", "diameter ~ 1 + (1 | plate) + (1 | sample)", auto("plate", "sample"), REML = FALSE)
own("penicillin_unbalanced", "penicillin_unbalanced.csv", "diameter ~ 1 + (1 | plate) + (1 | sample)", auto("plate", "sample"))
case("pastes_nested", "Pastes.csv", "strength ~ 1 + (1 | batch/cask)", auto("batch", "cask"))
case("machines_vector", "Machines.csv", "score ~ Machine + (Machine | Worker)", l_mach, list(2:3))
case("machines_cell_means", "Machines.csv", "score ~ 0 + Machine + (1 | Worker) + (1 | Worker:Machine)", l_mach,
     list(1:3, rbind(c(1, -1, 0), c(0, 1, -1), c(1, 0, -1))), note = "three contrasts of rank two")
case("orthodont_slopes", "Orthodont.csv", "distance ~ age * Sex + (age | Subject)", l_orth, list(3:4))
case("orthodont_slopes_ml", "Orthodont.csv", "distance ~ age * Sex + (age | Subject)", l_orth, list(3:4), REML = FALSE)
case("cake_interaction", "cake.csv", "angle ~ recipe * temperature + (1 | recipe:replicate)", l_cake, list(2:3, 4:8, 9:18))
own("cake_empty_cells", "cake_empty_cells.csv", "angle ~ recipe * temperature + (1 | recipe:replicate)", l_cake, list(2:3, 9:16),
    note = "two columns are left out")
case("oats_split_plot", "Oats.csv", "yield ~ nitro * Variety + (1 | Block/Variety)", l_oats, list(3:4, 5:6))
own("sleepstudy_missing", "sleepstudy_missing.csv", "Reaction ~ Days + (Days | Subject)", l_sleep, list(1:2))
own("sleepstudy_missing_double_bar", "sleepstudy_missing.csv", "Reaction ~ Days + (Days || Subject)", l_sleep)
own("no_intercept", "sleepstudy_missing.csv", "Reaction ~ 0 + Days + (0 + Days | Subject)", l_sleep)
own("groups_slope", "groups.csv", "y ~ x + f + (x | g)", l_groups, list(3:4))
own("groups_weights", "groups.csv", "y ~ x + f + (x | g)", l_groups, list(3:4), weights = "w")
own("groups_weights_ml_offset", "groups.csv", "y ~ x + f + (1 | g)", l_groups, list(3:4), weights = "w", offset = "off", REML = FALSE)
own("groups_two_terms", "groups.csv", "y ~ x * f + (1 | g) + (0 + x | g)", l_groups, list(3:4, 5:6))
own("groups_three_coefficients", "groups.csv", "y ~ x + z + f + (x + z | g)", l_groups, list(4:5))
own("nested_deep", "nested.csv", "y ~ x + (1 | a/b/c)", auto("a", "b", "c"))
own("nested_slopes", "nested.csv", "y ~ x + (x | a) + (1 | a:b)", auto("a", "b"))
own("pupils_crossed", "pupils.csv", "y ~ treat + (1 | pupil) + (treat | item) + (1 | school)", l_pupils)
own("teaching_weights", "teaching.csv", "y ~ service + x + (1 | s) + (1 | d)", l_teach, list(2:3), weights = "w")
case("contraception_many_levels", "Contraception.csv", "age ~ urban * livch + (1 | district)",
     list(district = "auto", livch = "auto", urban = c("N", "Y")), list(3:5, 6:8))
case("scotssec_slope", "ScotsSec.csv", "attain ~ verbal + sex + (1 | primary) + (verbal | second)",
     list(primary = "auto", second = "auto", sex = c("M", "F")), list(2:3), kr = FALSE)
own("singular_none", "singular.csv", "none ~ x + (1 | g)", l_sing, list(1:2))
own("singular_one_of_two", "singular.csv", "intercept ~ x + (1 | g) + (1 | h)", l_sing)
own("singular_double_bar", "singular.csv", "intercept ~ x + (x + z || g)", l_sing)
own("singular_slope", "singular.csv", "intercept ~ x + (x | g)", l_sing)
own("singular_tied", "singular.csv", "tied ~ x + (x | g)", l_sing, list(1:2), note = "correlation -1")
own("singular_tied_three", "singular.csv", "tied3 ~ x + z + (x + z | g)", l_sing, list(2:3), note = "a covariance matrix of rank 1")
own("singular_plane", "singular.csv", "plane ~ x + z + (x + z | g)", l_sing, list(2:3), note = "a covariance matrix of rank 2")
own("singular_plane_ml", "singular.csv", "plane ~ x + z + (x + z | g)", l_sing, list(2:3), REML = FALSE)

meta <- list(script = "make_denominators.R", R = R.version.string,
  packages = as.list(sapply(c("lme4", "lmerTest", "pbkrtest"), function(p) as.character(packageVersion(p)))), data_dir = DATA,
  fields = list(contrasts = "matrices L of the F tests, by rows", satterthwaite = "coefficients, in the order of fixef_names",
                kenward_roger_tests = "f is scaled", kenward_roger_vcov = "the adjusted covariance of the fixed effects"))
js <- function(x) as.character(toJSON(x, digits = NA, auto_unbox = TRUE, null = "null", na = "null"))
writeLines(c(paste0('{"meta": ', js(meta), ","), '"cases": [', paste(vapply(cases, js, ""), collapse = ",\n"), "]}"),
           "denominators.json", useBytes = TRUE)
