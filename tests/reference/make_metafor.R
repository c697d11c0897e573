# REML and ML fits of ten meta-analyses by metafor, at full precision.
# Run: Rscript make_metafor.R > metafor.json   (R 4.2, metafor 3.8 with metadat)
suppressPackageStartupMessages({library(metafor); library(metadat)})
num <- function(x) paste0("[", paste(formatC(as.numeric(x), digits = 17, format = "g"), collapse = ", "), "]")
one <- function(x) formatC(as.numeric(x), digits = 17, format = "g")
bcg <- escalc(measure = "RR", ai = tpos, bi = tneg, ci = cpos, di = cneg, data = dat.bcg)
sets <- list(
  bcg = list(yi = bcg$yi, vi = bcg$vi, mods = cbind(ablat = dat.bcg$ablat)),
  hine1989 = with(escalc(measure = "RD", n1i = n1i, n2i = n2i, ai = ai, ci = ci, data = dat.hine1989), list(yi = yi, vi = vi)),
  normand1999 = with(escalc(measure = "MD", m1i = m1i, sd1i = sd1i, n1i = n1i, m2i = m2i, sd2i = sd2i, n2i = n2i, data = dat.normand1999), list(yi = yi, vi = vi)),
  raudenbush1985 = with(dat.raudenbush1985, list(yi = yi, vi = vi)),
  molloy2014 = with(escalc(measure = "ZCOR", ri = ri, ni = ni, data = dat.molloy2014), list(yi = yi, vi = vi)),
  hackshaw1998 = with(dat.hackshaw1998, list(yi = yi, vi = vi)),
  li2007 = with(escalc(measure = "OR", ai = ai, n1i = n1i, ci = ci, n2i = n2i, data = dat.li2007), list(yi = yi, vi = vi)),
  collins1985a = with(escalc(measure = "OR", ai = b.xti, n1i = nti, ci = b.xci, n2i = nci, data = dat.collins1985a, add = 1/2, to = "only0", drop00 = TRUE), list(yi = yi[!is.na(yi)], vi = vi[!is.na(vi)])),
  linde2005 = with(escalc(measure = "RR", ai = ai, n1i = n1i, ci = ci, n2i = n2i, data = dat.linde2005), list(yi = yi[!is.na(yi)], vi = vi[!is.na(vi)])),
  pignon2000 = with(dat.pignon2000, list(yi = OmE / V, vi = 1 / V))
)
out <- c()
for (name in names(sets)) {
  s <- sets[[name]]
  fits <- c()
  for (m in c("REML", "ML")) {
    f <- rma(s$yi, s$vi, method = m, control = list(threshold = 1e-15, maxiter = 1e5, stepadj = 0.5))
    p <- predict(f)
    fits <- c(fits, sprintf('"%s": {"tau2": %s, "beta": %s, "se": %s, "loglik": %s, "blup": %s, "pi": %s, "I2": %s, "H2": %s, "Q": %s, "Qp": %s}',
      tolower(m), one(f$tau2), one(f$beta), one(f$se), one(f$fit.stats["ll", m]), num(blup(f)$pred), num(c(p$pi.lb, p$pi.ub)), one(f$I2), one(f$H2), one(f$QE), one(f$QEp)))
  }
  fe <- rma(s$yi, s$vi, method = "FE")
  fits <- c(fits, sprintf('"common": {"beta": %s, "se": %s}', one(fe$beta), one(fe$se)))
  if (!is.null(s$mods)) {
    f <- rma(s$yi, s$vi, mods = s$mods, method = "REML", control = list(threshold = 1e-15, maxiter = 1e5, stepadj = 0.5))
    fits <- c(fits, sprintf('"moderated": {"x": %s, "tau2": %s, "beta": %s, "se": %s, "I2": %s, "Q": %s}', num(s$mods), one(f$tau2), num(f$beta), num(f$se), one(f$I2), one(f$QE)))
  }
  out <- c(out, sprintf('"%s": {"yi": %s, "vi": %s, %s}', name, num(s$yi), num(s$vi), paste(fits, collapse = ", ")))
}
cat("{", paste(out, collapse = ",\n "), "}\n")
