# More linear mixed models fitted by lme4: codings, weights and offsets, all shapes of random terms, singular
# fits, awkward scales, missing values.
#   cd tests/reference && OMP_NUM_THREADS=1 Rscript make_lme4_more.R     (R >= 4.2, lme4 >= 1.1-31, minqa, jsonlite)
# Writes lme4_more.json from the shipped CSV files and from data/*.csv (make_lme4_more_data.R). A pattern as
# argument runs the cases whose id it matches, and writes nothing.
N_STARTS <- 6
source("ref_helpers.R")
ONLY <- commandArgs(TRUE)
cases <- list()
one <- function(id, file, formula, levels, ..., shipped = TRUE, REML = TRUE)
  if (!length(ONLY) || grepl(ONLY, id))
    cases[[length(cases) + 1]] <<- run_case(id, file, formula, used(levels, formula, ...), ..., REML = REML, n_ranef = 4,
                                            dir = if (shipped) DATA else "data")
used <- function(levels, formula, python = formula, ...)
  levels[names(levels) %in% union(all.vars(as.formula(formula)), all.vars(str2lang(python)))]
both <- function(id, ...) { one(paste0(id, "_reml"), ..., REML = TRUE); one(paste0(id, "_ml"), ..., REML = FALSE) }
own <- function(...) both(..., shipped = FALSE)
auto <- function(...) sapply(c(...), function(v) "auto", simplify = FALSE)

l_sleep <- auto("Subject"); l_groups <- auto("g", "f"); l_cake <- auto("replicate", "recipe", "temperature")
l_orth <- auto("Subject", "Sex"); l_mach <- auto("Worker", "Machine"); l_oats <- auto("Block", "Variety")
l_scot <- list(primary = "auto", second = "auto", sex = c("M", "F"))
l_teach <- auto("s", "d", "dept", "service"); l_sing <- auto("g", "h")
l_pupils <- auto("school", "class", "pupil", "item", "treat"); l_nested <- auto("a", "b", "c")
l_contra <- auto("district", "use", "livch", "urban")
indicators <- function(d) { for (k in c("A", "B", "C")) d[[paste0("m", k)]] <- as.numeric(d$Machine == k); d }
full <- c(mA = "Machine[A]", mB = "Machine[B]", mC = "Machine[C]"); treated <- c(mB = "Machine[T.B]", mC = "Machine[T.C]")

## ---------------------------------------------------------------- weights, offsets, transformed responses
own("weights_slope", "groups.csv", "y ~ x + f + (x | g)", l_groups, weights = "w")
own("weights_crossed", "teaching.csv", "y ~ service + x + (1 | s) + (service | d)", l_teach, weights = "w")
both("weights_trials", "cbpp.csv", "I(incidence/size) ~ period + (1 | herd)", auto("herd", "period"), weights = "size")
own("offset_column", "groups.csv", "y ~ x + (x | g)", l_groups, offset = "off")
own("offset_formula", "groups.csv", "y ~ x + offset(log(e)) + (1 | g)", l_groups)
own("offset_both_weights", "groups.csv", "y ~ x + offset(log(e)) + (1 | g)", l_groups, offset = "off", weights = "w",
    note = "the offsets add up")
both("log_response", "sleepstudy.csv", "log(Reaction) ~ Days + (Days | Subject)", l_sleep)

## ---------------------------------------------------------------- fixed effects
both("poly", "sleepstudy.csv", "Reaction ~ poly(Days, 2) + (Days | Subject)", l_sleep)
both("square", "sleepstudy.csv", "Reaction ~ Days + I(Days^2) + (1 | Subject)", l_sleep)
both("log_slope", "sleepstudy.csv", "Reaction ~ log(Days + 1) + (log(Days + 1) | Subject)", l_sleep)
both("scale_slope", "sleepstudy.csv", "Reaction ~ scale(Days) + (scale(Days) | Subject)", l_sleep,
     note = "the same criterion as Days + (Days | Subject) by ML")
both("factor_of_number", "sleepstudy.csv", "Reaction ~ factor(Days) + (1 | Subject)", l_sleep)
both("no_intercept", "sleepstudy.csv", "Reaction ~ 0 + Days + (Days | Subject)", l_sleep)
one("no_fixed_effects_ml", "sleepstudy.csv", "Reaction ~ 0 + (1 | Subject)", l_sleep, REML = FALSE,
    note = "without fixed effects REML is ML; lme4 says ML")
both("interaction", "Orthodont.csv", "distance ~ age * Sex + (age | Subject)", l_orth)
both("interaction_alone", "Orthodont.csv", "distance ~ Sex + Sex:age + (1 | Subject)", l_orth,
     note = "one slope per Sex")
own("main_effect_removed", "groups.csv", "y ~ x * f - x + (1 | g)", l_groups, note = "one slope per level of f")
own("three_way_numeric", "groups.csv", "y ~ x * z * f + (1 | g)", l_groups)
both("three_way_factors", "Contraception.csv", "age ~ use * urban * livch + (1 | district)", l_contra)
both("power", "ScotsSec.csv", "attain ~ (sex + verbal + social)^2 + (1 | primary) + (1 | second)", l_scot)
both("cell_means", "Machines.csv", "score ~ 0 + Machine + (1 | Worker)", l_mach)
both("cell_means_minus", "Machines.csv", "score ~ Machine - 1 + (0 + Machine | Worker)", l_mach)
split_plot <- function(id, fixed, ...) both(paste0("cake_", id), "cake.csv", paste("angle ~", fixed, "+ (1 | recipe:replicate)"), ...,
                                            ordered = "temperature")
split_plot("treatment", "recipe * temperature", l_cake)
split_plot("poly", "recipe * temperature", l_cake, contrasts = list(temperature = "contr.poly"),
           python = "angle ~ recipe * C(temperature, contr.poly) + (1 | recipe:replicate)")
split_plot("sum_poly", "recipe * temperature", l_cake, contrasts = list(recipe = "contr.sum", temperature = "contr.poly"),
           python = "angle ~ C(recipe, contr.sum) * C(temperature, contr.poly) + (1 | recipe:replicate)")
split_plot("helmert_sum", "recipe + temperature", l_cake, contrasts = list(recipe = "contr.helmert", temperature = "contr.sum"),
           python = "angle ~ C(recipe, contr.helmert) + C(temperature, contr.sum) + (1 | recipe:replicate)")
split_plot("cells", "0 + recipe:temperature", l_cake, note = "18 cell means: the same criterion as the two main effects with interaction, by ML")
split_plot("other_reference", "recipe + temp", list(replicate = "auto", recipe = c("B", "A", "C"), temperature = "auto"))
one("cake_colon_only_ml", "cake.csv", "angle ~ recipe:temperature + (1 | recipe:replicate)", l_cake, REML = FALSE, ordered = "temperature",
    note = paste("R makes 18 indicators and an intercept and drops the last; formulaic makes 18 independent columns at once, so that",
                 "the names and coefficients differ, and the REML criterion; ML and the fitted values are the same"))

## ---------------------------------------------------------------- one grouping factor
both("slope_alone", "sleepstudy.csv", "Reaction ~ Days + (0 + Days | Subject)", l_sleep)
both("three_coefs", "sleepstudy.csv", "Reaction ~ Days + I(Days^2) + (Days + I(Days^2) | Subject)", l_sleep)
both("square_first", "sleepstudy.csv", "Reaction ~ Days + (I(Days^2) + Days | Subject)", l_sleep)
both("poly_slopes", "sleepstudy.csv", "Reaction ~ poly(Days, 2) + (poly(Days, 2) | Subject)", l_sleep)
both("three_terms", "sleepstudy.csv", "Reaction ~ Days + (1 | Subject) + (0 + Days | Subject) + (0 + I(Days^2) | Subject)", l_sleep)
both("double_bar_slope", "Orthodont.csv", "distance ~ age * Sex + (age || Subject)", l_orth)
own("singletons_slope", "groups.csv", "y ~ x + (x | g)", l_groups)
own("singletons_two_terms", "groups.csv", "y ~ x + (1 | g) + (0 + x | g)", l_groups)
own("two_slopes", "groups.csv", "y ~ x + z + (x + z | g)", l_groups)
own("two_slopes_double_bar", "groups.csv", "y ~ x + z + (x + z || g)", l_groups)
own("two_slopes_alone", "groups.csv", "y ~ x + z + (0 + x + z | g)", l_groups)
own("four_coefs", "groups.csv", "y ~ x * z + (x * z | g)", l_groups)
own("factor_cells", "groups.csv", "y ~ f + x + (x | g) + (1 | g:f)", l_groups)
own("factor_slope", "groups.csv", "y ~ f + (f | g)", l_groups)
own("factor_full", "groups.csv", "y ~ f + (0 + f | g)", l_groups, note = "the same criterion as (f | g)")
both("machine_slope", "Machines.csv", "score ~ Machine + (Machine | Worker)", l_mach)
both("machine_full", "Machines.csv", "score ~ Machine + (0 + Machine | Worker)", l_mach, note = "the same criterion as (Machine | Worker)")
split_up <- "lme4 does not split a factor at ||: fitted in R as independent terms in hand-made columns (mA = 1 where Machine is A, ...)"
both("machine_double_bar", "Machines.csv", "score ~ Machine + (1 | Worker) + (0 + mB | Worker) + (0 + mC | Worker)", l_mach,
     prep = indicators, python = "score ~ Machine + (Machine || Worker)", rename = treated, note = split_up)
both("machine_full_double_bar", "Machines.csv", "score ~ Machine + (0 + mA | Worker) + (0 + mB | Worker) + (0 + mC | Worker)", l_mach,
     prep = indicators, python = "score ~ Machine + (0 + Machine || Worker)", rename = full, note = split_up)
both("urban_slope", "Contraception.csv", "age ~ livch * urban + (urban | district)", l_contra)

## ---------------------------------------------------------------- nested factors
both("machine_nested", "Machines.csv", "score ~ Machine + (1 | Worker/Machine)", l_mach)
both("machine_cells", "Machines.csv", "score ~ Machine + (1 | Worker:Machine)", l_mach)
both("oats_nested", "Oats.csv", "yield ~ nitro + Variety + (1 | Block/Variety)", l_oats)
both("oats_nested_slopes", "Oats.csv", "yield ~ nitro * Variety + (nitro | Block/Variety)", l_oats)
both("pastes_cells", "Pastes.csv", "strength ~ 1 + (1 | batch:cask)", auto("batch", "cask", "sample"))
own("nested_three", "nested.csv", "y ~ x + (1 | a/b/c)", l_nested,
    note = "lme4 calls the innermost factor c:(b:a), the package c:b:a; the levels are the same, c1:b1:a1")
own("nested_three_colon", "nested.csv", "y ~ x + (1 | a) + (1 | a:b) + (1 | a:b:c)", l_nested, note = "the same model as (1 | a/b/c)")
own("nested_slopes", "nested.csv", "y ~ x + (x | a/b)", l_nested)
own("nested_slope_above", "nested.csv", "y ~ x + (x | a) + (1 | a:b) + (1 | a:b:c)", l_nested)
own("nested_double_bar", "nested.csv", "y ~ x + (x || a/b)", l_nested)
own("nested_crossed", "pupils.csv", "y ~ treat + (1 | school/class) + (1 | pupil) + (1 | item)", l_pupils)
own("nested_crossed_slope", "pupils.csv", "y ~ treat + (1 | school/class/pupil) + (treat | item)", l_pupils)

## ---------------------------------------------------------------- crossed factors
own("crossed_unbalanced", "penicillin_unbalanced.csv", "diameter ~ 1 + (1 | plate) + (1 | sample)", auto("plate", "sample"))
both("crossed_factor_slope", "ScotsSec.csv", "attain ~ sex * verbal + (1 | primary) + (sex | second)", l_scot)
both("crossed_two_slopes", "ScotsSec.csv", "attain ~ verbal + sex + (verbal | primary) + (verbal | second)", l_scot)
both("crossed_order", "ScotsSec.csv", "attain ~ verbal + (1 | second) + (0 + verbal | second) + (1 | primary)", l_scot,
     note = "lme4 sorts by decreasing number of levels, and where it has to sort it turns round the order of equal numbers")
own("teaching_slope", "teaching.csv", "y ~ service + x + (1 | s) + (service | d)", l_teach)
own("teaching_two_slopes", "teaching.csv", "y ~ service + (service | s) + (service | d)", l_teach)
own("teaching_dept", "teaching.csv", "y ~ service + (1 | s) + (service | d) + (1 | dept) + (1 | dept:service)", l_teach)
own("teaching_three_coefs", "teaching.csv", "y ~ service + x + (x | s) + (service + x | d)", l_teach)
own("teaching_full", "teaching.csv", "y ~ 0 + service + x + (1 | s) + (0 + service | d) + (0 + x | d)", l_teach)

## ---------------------------------------------------------------- singular fits
own("none_intercept", "singular.csv", "none ~ x + (1 | g)", l_sing)
own("none_slope", "singular.csv", "none ~ x + (x | g)", l_sing)
own("none_crossed", "singular.csv", "none ~ x + (1 | g) + (1 | h)", l_sing)
own("one_of_two_zero", "singular.csv", "intercept ~ x + (1 | g) + (1 | h)", l_sing)
own("slope_zero", "singular.csv", "intercept ~ x + (x | g)", l_sing)
own("slope_zero_double_bar", "singular.csv", "intercept ~ x + (x + z || g)", l_sing)
own("intercept_zero", "singular.csv", "slope ~ x + (x | g)", l_sing,
    note = "a correlation of 1 with an intercept sd of almost zero: a long flat valley")
own("tied", "singular.csv", "tied ~ x + (x | g)", l_sing, note = "correlation -1")
own("tied_crossed", "singular.csv", "tied ~ x + (x | g) + (1 | h)", l_sing)
own("tied_three", "singular.csv", "tied3 ~ x + z + (x + z | g)", l_sing, note = "a covariance matrix of rank 1")
own("plane", "singular.csv", "plane ~ x + z + (x + z | g)", l_sing, note = "a covariance matrix of rank 2")

## ---------------------------------------------------------------- awkward scales
scaled <- function(id, formula, ...) own(id, "sleepstudy_scaled.csv", formula, c(l_sleep, auto("baseline", "later")), ...)
scaled("response_large", "big ~ Days + (Days | Subject)", note = "Reaction in units of 1e-6 ms")
scaled("response_far", "shifted ~ Days + (Days | Subject)", note = "Reaction + 1e6")
scaled("year", "Reaction ~ year + (year | Subject)",
       note = "year = 2011 + Days: the criterion of Days + (Days | Subject), with intercept and slope almost tied (correlation near -1)")
scaled("year_intercept", "Reaction ~ year + (1 | Subject)")

## ---------------------------------------------------------------- rank, unused levels, missing values
scaled("dropped_number", "Reaction ~ Days + twice + (Days | Subject)", note = "twice = 2 Days + 1")
scaled("dropped_level", "Reaction ~ baseline * Days + later + (1 | Subject)", note = "later repeats baseline")
own("dropped_cells", "cake_empty_cells.csv", "angle ~ recipe * temperature + (1 | recipe:replicate)", l_cake, ordered = "temperature",
    note = "recipe C was not baked at 215 and 225")
both("unused_levels", "Contraception.csv", "age ~ urban + livch + (1 | district)",
     list(district = as.character(1:61), use = "auto", livch = c("0", "1", "2", "3+", "4+"), urban = c("N", "T", "Y")),
     note = "levels T of urban, 4+ of livch and 54 of district do not occur")
missing <- function(id, formula, ...) own(id, "sleepstudy_missing.csv", formula, l_sleep, ...)
missing("missing_values", "Reaction ~ Days + (Days | Subject)", note = "values of all three columns are missing, and every response of subject 335")
missing("missing_weights", "Reaction ~ Days + (1 | Subject)", weights = "w", note = "rows without a weight are left out too")

## ---------------------------------------------------------------- no random effects
# `lm` under the names of the other cases; by ML sigma has the divisor n.
plain <- function(id, file, formula, levels, shipped, weights = NULL, offset = NULL, ...) for (REML in c(TRUE, FALSE)) {
  id_ <- paste0(id, if (REML) "_reml" else "_ml"); if (length(ONLY) && !grepl(ONLY, id_)) next
  d <- read_data(file, levels, if (shipped) DATA else "data"); f <- as.formula(formula); environment(f) <- environment()
  d$.w <- if (is.null(weights)) 1 else eval(parse(text = weights), d)
  d$.o <- if (is.null(offset)) 0 else eval(parse(text = offset), d)
  m <- lm(f, d, weights = .w, offset = .o); ll <- logLik(m, REML = REML); n <- nobs(m); s <- summary(m)$sigma
  if (!REML) s <- s * sqrt(m$df.residual / n)
  V <- s^2 * summary(m)$cov.unscaled; b <- coef(m)
  o <- list(id = id_, data = file, formula = formula, data_dir = if (shipped) DATA else "data", family = "gaussian", link = "identity",
    method = if (REML) "REML" else "ML", REML = REML, contrasts = "treatment (first entry of `levels` is the reference)",
    levels = lapply(levels, function(l) NULL))
  o$levels <- lapply(d[, names(levels), drop = FALSE], function(v) I(levels(v)))
  o$weights <- weights; o$offset <- offset; o$note <- "fitted by lm"; o$nobs <- n; o$n_rows_in_file <- nrow(d); o$ngrps <- list()
  o$fixef_names <- I(names(b)); o$fixef <- as.list(b)
  n_ <- matrix_names(terms(m), model.frame(m)); o$fixef_names_python <- I(n_$python)
  o$vcov <- mat(V); o$se <- setNames(as.list(sqrt(diag(V))), names(b)); o$theta_names <- I(character()); o$theta <- I(numeric())
  o$sigma <- s; o$varcomp <- list(); o$logLik <- as.numeric(ll); o$df <- length(b) + 1
  o[[if (REML) "REMLcrit" else "deviance"]] <- -2 * as.numeric(ll)
  if (REML) o$deviance_ML_at_REML_estimate <- n * log(2 * pi * s^2) - sum(log(d$.w)) + sum(d$.w * resid(m)^2) / s^2
  o$AIC <- o$df * 2 - 2 * o$logLik; o$BIC <- log(n) * o$df - 2 * o$logLik; o$isSingular <- FALSE; o$ranef <- list()
  o$fitted5 <- unname(fitted(m)[1:5]); o$resid5 <- unname(resid(m)[1:5])
  cases[[length(cases) + 1]] <<- o; cat(sprintf("%-44s n=%6d\n", id_, n))
}
plain("lm", "Orthodont.csv", "distance ~ age * Sex", l_orth, TRUE)
plain("lm_weights_offset", "groups.csv", "y ~ x + f + offset(log(e))", l_groups, FALSE, weights = "w", offset = "off")

# here R's columns are not formulaic's
cases <- lapply(cases, function(o) { if (o$id == "cake_colon_only_ml") o$fixef_names_python <- NULL; o })
if (!length(ONLY)) write_cases(cases, "lme4_more.json", meta("make_lme4_more.R"))
cat(length(cases), "cases\n")
