# Leverages and Cook's distances by row, and the influence of groups, by lme4.
#   cd tests/reference && OMP_NUM_THREADS=1 Rscript make_influence.R     (R >= 4.2, lme4, jsonlite, minqa)
# Writes influence.json from the shipped CSV files. `refits` are fits without each group, to the optimum by
# ref_helpers.R; `cook_groups` is lme4's cooks.distance(influence(m, g)), whose own refits stop earlier.
source("ref_helpers.R")
cases <- list()
case <- function(id, file, formula, factors, group, family = NULL, weights = NULL) {
  d <- read_data(file, sapply(factors, function(v) "auto", simplify = FALSE), DATA)
  if (!is.null(weights)) d$.w <- eval(parse(text = weights), d)
  assign(".d", d, globalenv())
  f <- as.formula(formula); environment(f) <- globalenv()
  fit <- function(data) {
    assign(".e", data, globalenv())
    extra <- if (!is.null(weights)) list(weights = quote(.w))
    if (is.null(family)) do.call(lmer, c(list(f, quote(.e), control = lmerControl(optimizer = "bobyqa",
      optCtrl = list(rhoend = 1e-9, maxfun = 1e5), check.conv.singular = "ignore", calc.derivs = FALSE)), extra))
    else do.call(glmer, c(list(f, quote(.e), family = family, control = glmerControl(optimizer = "bobyqa", tolPwrss = 1e-10,
      optCtrl = list(rhoend = 1e-9, maxfun = 1e5), check.conv.singular = "ignore")), extra))
  }
  m <- suppressMessages(suppressWarnings(fit(d)))
  numbers <- function(m) c(unname(fixef(m)), sigma(m), unlist(lapply(unname(VarCorr(m)), function(V) attr(V, "stddev"))))
  levels <- levels(d[[group]])
  refits <- lapply(levels, function(l) I(unname(numbers(suppressMessages(suppressWarnings(fit(droplevels(d[d[[group]] != l, ]))))))))
  assign(".e", d, globalenv())
  o <- list(id = id, data = file, formula = formula, group = group, family = if (is.null(family)) "gaussian" else family$family,
            weights = weights, levels = I(levels), all = I(unname(numbers(m))), refits = refits)
  if (is.null(family)) {
    o$hat <- I(unname(hatvalues(m))); o$cook <- I(unname(cooks.distance(m))); o$standardized <- I(unname(rstudent(m)))
    inf <- suppressMessages(suppressWarnings(influence(m, groups = group, data = d)))
    o$cook_groups <- I(unname(setNames(cooks.distance(inf), inf$deleted)[levels]))
  }
  cases[[length(cases) + 1]] <<- o
  cat(id, length(levels), "\n")
}
case("sleepstudy", "sleepstudy.csv", "Reaction ~ Days + (Days | Subject)", "Subject", "Subject")
case("penicillin_plate", "Penicillin.csv", "diameter ~ 1 + (1 | plate) + (1 | sample)", c("plate", "sample"), "plate")
case("penicillin_sample", "Penicillin.csv", "diameter ~ 1 + (1 | plate) + (1 | sample)", c("plate", "sample"), "sample")
case("orthodont", "Orthodont.csv", "distance ~ age * Sex + (age | Subject)", c("Subject", "Sex"), "Subject")
case("pastes", "Pastes.csv", "strength ~ 1 + (1 | batch/cask)", c("batch", "cask"), "batch")
case("machines", "Machines.csv", "score ~ Machine + (1 | Worker)", c("Worker", "Machine"), "Worker")
case("orthodont_weights", "Orthodont.csv", "distance ~ age + Sex + (1 | Subject)", c("Subject", "Sex"), "Subject", weights = "age / 8")
case("cbpp", "cbpp.csv", "incidence/size ~ period + (1 | herd)", c("herd", "period"), "herd", family = binomial(), weights = "size")
writeLines(toJSON(list(meta = list(lme4 = as.character(packageVersion("lme4")), R = R.version.string, data_dir = DATA), cases = cases),
                  digits = NA, auto_unbox = TRUE, null = "null"), "influence.json", useBytes = TRUE)
