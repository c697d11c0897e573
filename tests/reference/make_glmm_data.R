# The data of make_glmm.R that the package does not ship: data/glmm_*.csv, simulated with a fixed seed. Each
# file has responses of many families for the same rows, so that a column's name says its family.
#   cd tests/reference && Rscript make_glmm_data.R     (R >= 3.6)
RNGversion("3.6.0")
put <- function(d, name) write.csv(d, file.path("data", paste0(name, ".csv")), row.names = FALSE, quote = FALSE, na = "")
pad <- function(letter, k, width = 2) sprintf(paste0("%s%0", width, "d"), letter, k)
per <- function(f, sd) rnorm(nlevels(factor(f)), 0, sd)[factor(f)]      # one normal draw per level
rig <- function(mu, lambda) {                                           # inverse Gaussian, Michael et al. (1976)
  y <- rnorm(length(mu))^2
  x <- mu + mu^2 * y / (2 * lambda) - mu / (2 * lambda) * sqrt(4 * mu * lambda * y + mu^2 * y^2)
  ifelse(runif(length(mu)) <= mu / (mu + x), x, mu^2 / x)
}
responses <- function(d, eta) {                                         # eta about 0, sd about 1
  n <- nrow(d); p <- plogis(eta); mu <- exp(1 + .6 * eta)
  d$trials <- sample(1:12, n, TRUE)
  d$k <- rbinom(n, d$trials, p)
  d$binary <- rbinom(n, 1, p)
  d$probit <- rbinom(n, 1, pnorm(.7 * eta))
  d$cloglog <- rbinom(n, d$trials, 1 - exp(-exp(.5 * eta - .5)))
  d$e <- round(exp(rnorm(n, 0, .6)), 3)
  d$count <- rpois(n, d$e * mu)
  d$nb <- rnbinom(n, mu = d$e * mu, size = 1.7)
  d$gamma <- round(rgamma(n, 4, 4 / mu), 4) + 1e-4
  d$reciprocal <- round(rgamma(n, 6, 6 * (2 + .25 * eta)), 5) + 1e-5     # mean 1 / (2 + ...)
  d$ig <- round(rig(mu, 6), 4) + 1e-4
  d$beta <- pmin(pmax(round(rbeta(n, 8 * p, 8 * (1 - p)), 5), 1e-5), 1 - 1e-5)
  d$normal <- round(mu + rnorm(n, 0, .8), 4)
  d$t <- round(eta + .6 * rt(n, 4), 4)
  d
}

# one factor with groups of 1 to 14 rows, and a crossed one; frequency weights w and precisions v
set.seed(201)
size <- c(rep(1, 4), 2:14, rep(5:8, 4))
g <- sample(rep(seq_along(size), size)); n <- length(g)
d <- data.frame(g = pad("g", g), h = pad("h", sample(9, n, TRUE), 1), f = sample(c("a", "b", "c"), n, TRUE, c(.5, .3, .2)),
                x = round(rnorm(n), 3), z = round(runif(n, -1, 1), 3), w = sample(1:3, n, TRUE), v = round(rgamma(n, 4, 4) + .1, 3))
d <- responses(d, .2 + .5 * d$x + c(a = 0, b = .5, c = -.4)[d$f] + per(d$g, .8) + d$x * per(d$g, .4) + per(d$h, .5))
put(d, "glmm_groups")

# answers of pupils (in classes in schools) to items: nested and crossed, 20 % of the answers missing
set.seed(202)
d <- do.call(rbind, lapply(1:7, function(s) do.call(rbind, lapply(seq_len(sample(2:4, 1)), function(k)
  data.frame(school = pad("s", s, 1), class = pad("c", k, 1), pupil = seq_len(sample(2:5, 1)))))))
d$pupil <- pad("p", seq_len(nrow(d)), 3)
d$treat <- ifelse(runif(nrow(d)) < .5, "N", "Y")
d <- merge(d, data.frame(item = pad("i", 1:6)))
d <- d[runif(nrow(d)) > .2, ]
d <- d[order(d$pupil, d$item), c("school", "class", "pupil", "item", "treat")]
d$x <- round(rnorm(nrow(d)), 3)
d <- responses(d, -.1 + .5 * (d$treat == "Y") + .3 * d$x + per(d$school, .6) + per(paste(d$school, d$class), .5) +
                 per(d$pupil, .4) + per(d$item, .7))
put(d, "glmm_pupils")

# nothing at the level of g: every group has the same responses, but for x
set.seed(203)
d <- expand.grid(r = 1:8, g = pad("g", 1:10))
d$x <- round(rep(rnorm(8), 10), 3)
d$trials <- 6; d$k <- rep(c(1, 2, 4, 3, 5, 2, 3, 4), 10); d$binary <- rep(c(0, 1, 1, 0, 1, 0, 0, 1), 10)
d$count <- rep(c(0, 2, 5, 1, 3, 4, 1, 0), 10); d$gamma <- rep(c(.4, 2.1, 1.3, .8, 3.5, 1.1, .6, 1.9), 10)
d$beta <- rep(c(.2, .7, .5, .35, .9, .4, .15, .6), 10); d$nb <- rep(c(0, 7, 1, 15, 3, 0, 2, 5), 10)
d$r <- NULL
put(d, "glmm_singular")

# few rows
set.seed(204)
d <- data.frame(g = rep(pad("g", 1:5, 1), c(2, 3, 4, 2, 3)))
d$x <- round(rnorm(nrow(d)), 2)
d <- responses(d, .4 * d$x + per(d$g, 1))
put(d, "glmm_few")
