# Reference results from lme4 for the teaching datasets that the package ships.
#   cd tests/reference && OMP_NUM_THREADS=1 Rscript make_lme4.R     (R >= 4.2, lme4 >= 1.1-31, minqa, jsonlite)
# Writes lme4.json. Everything is read from the CSV files.
# With MUSICDATA=<musicdata.csv> it writes lme4_music.json instead: the performance anxiety of 37 musicians
# (Sadler & Miller 2010, as in Roback & Legler, Beyond Multiple Linear Regression, 2021). These data are not
# shipped: their licence (CC BY-NC-SA 4.0) does not allow it.
source("ref_helpers.R")
cases <- list()
add <- function(...) cases[[length(cases) + 1]] <<- run_case(...)
both <- function(id, ...) { add(paste0(id, "_reml"), ..., REML = TRUE); add(paste0(id, "_ml"), ..., REML = FALSE) }

MUSIC <- Sys.getenv("MUSICDATA")
if (nzchar(MUSIC)) {
  DATA <- dirname(MUSIC)
  lm_ <- list(id = "auto", perform_type = c("Large Ensemble", "Small Ensemble", "Solo"))
  both("music_intercept", "musicdata.csv", "na ~ perform_type + (1 | id)", lm_)
  both("music_slope", "musicdata.csv", "na ~ perform_type + (perform_type | id)", lm_)
  DATA <- "the folder of musicdata.csv, which is not shipped"
  write_cases(cases, "lme4_music.json", meta("make_lme4.R"))
  quit()
}
both("dyestuff", "Dyestuff.csv", "Yield ~ 1 + (1 | Batch)", list(Batch = "auto"))
both("dyestuff2", "Dyestuff2.csv", "Yield ~ 1 + (1 | Batch)", list(Batch = "auto"),
     note = "estimate on the boundary: theta = 0")
both("penicillin", "Penicillin.csv", "diameter ~ 1 + (1 | plate) + (1 | sample)", list(plate = "auto", sample = "auto"))
lp <- list(batch = "auto", cask = "auto", sample = "auto")
both("pastes_batch_sample", "Pastes.csv", "strength ~ 1 + (1 | batch) + (1 | sample)", lp)
both("pastes_sample", "Pastes.csv", "strength ~ 1 + (1 | sample)", lp)
both("pastes_batch_slash_cask", "Pastes.csv", "strength ~ 1 + (1 | batch/cask)", lp,
     note = "the same model as (1 | batch) + (1 | sample); R labels the nested factor cask:batch and its levels e.g. 'a:A'")
ls <- list(Subject = "auto")
both("sleepstudy_slope", "sleepstudy.csv", "Reaction ~ Days + (Days | Subject)", ls)
both("sleepstudy_two_terms", "sleepstudy.csv", "Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)", ls)
both("sleepstudy_double_bar", "sleepstudy.csv", "Reaction ~ Days + (Days || Subject)", ls,
     note = "the same model as (1 | Subject) + (0 + Days | Subject)")
both("sleepstudy_intercept", "sleepstudy.csv", "Reaction ~ Days + (1 | Subject)", ls)
lss <- list(primary = "auto", second = "auto", sex = c("M", "F"))
both("scotssec_verbal_slope", "ScotsSec.csv", "attain ~ verbal + sex + (1 | primary) + (verbal | second)", lss)
both("scotssec_intercepts", "ScotsSec.csv", "attain ~ verbal + sex + (1 | primary) + (1 | second)", lss)
lc <- list(district = "auto", use = c("N", "Y"), livch = c("0", "1", "2", "3+"), urban = c("N", "Y"))
lch <- c(lc, list(ch = c("N", "Y")))
ch <- function(d) { d$ch <- factor(ifelse(d$livch == "0", "N", "Y"), levels = c("N", "Y")); d }
dch <- list(ch = "'N' where livch == '0', else 'Y'")
co <- function(id, formula, ch_ = TRUE, agq = TRUE) {
  for (k in c(1, if (agq) 10))
    add(paste0("contraception_", id, if (k > 1) "_agq10" else ""), "Contraception.csv", formula, lc,
        family = binomial, nAGQ = k, prep = if (ch_) ch, derived = if (ch_) dch,
        python = sub("^use", "I(use == 'Y')", formula), note = "response: success is use == 'Y'")
}
co("cm1", "use ~ age + I(age^2) + urban + livch + (1 | district)", ch_ = FALSE)
co("cm2", "use ~ age + I(age^2) + urban + ch + (1 | district)")
co("cm3", "use ~ age*ch + I(age^2) + urban + (1 | district)")
co("cm4_urban_slope", "use ~ age*ch + I(age^2) + urban + (urban | district)", agq = FALSE)
for (k in c(1, 10))
  add(paste0("cbpp", if (k > 1) "_agq10" else ""), "cbpp.csv", "cbind(incidence, size - incidence) ~ period + (1 | herd)",
      list(herd = "auto", period = "auto"), family = binomial, nAGQ = k,
      python = "I(incidence / size) ~ period + (1 | herd), weights = size (number of trials)",
      note = "the same fit as incidence/size ~ period + (1 | herd) with prior weights = size; period is categorical")
write_cases(cases, "lme4.json", meta("make_lme4.R"))
cat(length(cases), "cases\n")
