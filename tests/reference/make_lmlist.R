# Within-group fits of lme4's lmList: estimates, standard errors, pooled and unpooled intervals.
# Rscript make_lmlist.R  (writes lmlist.json)
library(lme4)
library(jsonlite)

data(Orthodont, Machines, package = "nlme")
orthodont <- as.data.frame(Orthodont)
machines <- as.data.frame(Machines)
machines$place <- factor(paste(machines$Worker, machines$Machine, sep = ":"))

found <- function(formula, data) {
  fit <- lmList(formula, data)
  m <- length(fit)
  table <- summary(fit)$coefficients
  list(
    levels = names(fit),
    coefs = colnames(coef(fit)),
    estimate = as.matrix(coef(fit)),
    se = matrix(table[, "Std. Error", ], dim(table)[1]),
    sigma = sigma(fit),
    lower_pooled = matrix(confint(fit, pool = TRUE)[, 1, ], m),
    lower_apart = matrix(confint(fit, pool = FALSE)[, 1, ], m)
  )
}

out <- list(
  sleepstudy = found(Reaction ~ Days | Subject, sleepstudy),
  pastes_batch = found(strength ~ 1 | batch, Pastes),
  pastes_sample = found(strength ~ 1 | sample, Pastes),
  penicillin_plate = found(diameter ~ 1 | plate, Penicillin),
  penicillin_sample = found(diameter ~ 1 | sample, Penicillin),
  orthodont = found(distance ~ age | Subject, orthodont),
  machines_worker = found(score ~ Machine | Worker, machines),
  machines_place = found(score ~ 1 | place, machines)
)
out$R <- R.version.string
out$lme4 <- as.character(packageVersion("lme4"))
write(toJSON(out, digits = NA, auto_unbox = TRUE), "lmlist.json")
