# The data of make_lme4_more.R that the package does not ship: data/*.csv, simulated with a fixed seed or
# derived from the shipped files.
#   cd tests/reference && Rscript make_lme4_more_data.R     (R >= 3.6)
SHIPPED <- "../../src/ranef/data"
RNGversion("3.6.0")
shipped <- function(name) read.csv(file.path(SHIPPED, paste0(name, ".csv")), stringsAsFactors = FALSE)
put <- function(d, name) write.csv(d, file.path("data", paste0(name, ".csv")), row.names = FALSE, quote = FALSE, na = "")
pad <- function(letter, k, width = 2) sprintf(paste0("%s%0", width, "d"), letter, k)
per <- function(f, sd) rnorm(nlevels(factor(f)), 0, sd)[factor(f)]      # one normal draw per level

# three nested levels, unbalanced, with labels that start again within each level above
set.seed(101)
d <- do.call(rbind, lapply(1:7, function(a) do.call(rbind, lapply(seq_len(sample(2:5, 1)), function(b)
  do.call(rbind, lapply(seq_len(sample(2:4, 1)), function(c)
    data.frame(a = pad("a", a, 1), b = pad("b", b, 1), c = pad("c", c, 1), x = round(rnorm(sample(2:6, 1)), 3))))))))
ab <- paste(d$a, d$b); abc <- paste(ab, d$c)
d$y <- round(20 + 1.5 * d$x + per(d$a, 2) + per(ab, 1.5) + per(abc, 1) + d$x * (per(d$a, .8) + per(ab, .6)) + rnorm(nrow(d)), 3)
put(d, "nested")

# answers of pupils (in classes in schools) to items: nested and crossed, 15 % of the answers missing
set.seed(102)
d <- do.call(rbind, lapply(1:8, function(s) do.call(rbind, lapply(seq_len(sample(2:4, 1)), function(k)
  data.frame(school = pad("s", s, 1), class = pad("c", k, 1), pupil = seq_len(sample(3:7, 1)))))))
d$pupil <- pad("p", seq_len(nrow(d)), 3)
d$treat <- ifelse(runif(nrow(d)) < .5, "N", "Y")
d <- merge(d, data.frame(item = pad("i", 1:11)))
d <- d[runif(nrow(d)) > .15, ]
d <- d[order(d$pupil, d$item), c("school", "class", "pupil", "item", "treat")]
y <- 50 + 2 * (d$treat == "Y") + per(d$school, 3) + per(paste(d$school, d$class), 2) + per(d$pupil, 2.5) + per(d$item, 4)
d$y <- round(y + (d$treat == "Y") * per(d$item, 1.5) + rnorm(nrow(d), 0, 3), 2)
put(d, "pupils")

# ratings of lecturers (d, each of one department) by students (s), each of whom heard a few: partially crossed
set.seed(103)
home <- sample(c("A", "B", "C", "D", "E", "F"), 40, replace = TRUE)
d <- do.call(rbind, lapply(1:150, function(s) data.frame(s = s, d = sort(sample(40, sample(3:14, 1))))))
d$dept <- home[d$d]
d$service <- ifelse(runif(nrow(d)) < .45, "Y", "N")
d$x <- sample(0:5, nrow(d), replace = TRUE)
d$w <- sample(c(1, 2, 3, 5), nrow(d), replace = TRUE)
Y <- d$service == "Y"
y <- 3.2 - .2 * Y - .05 * d$x + per(d$s, .35) + per(d$d, .5) + Y * per(d$d, .4) + per(d$dept, .25)
d$y <- round(y + d$x * (per(d$s, .08) + per(d$d, .1)) + rnorm(nrow(d), 0, .9), 3)
put(d, "teaching")

# one factor with groups of 1 to 15 rows; weights w, offset off, exposure e
set.seed(104)
size <- c(rep(1, 12), 2:15, rep(6:9, 4))
g <- sample(rep(seq_along(size), size)); n <- length(g)
d <- data.frame(g = g, f = sample(c("a", "b", "c"), n, TRUE, c(.5, .3, .2)), x = round(rnorm(n, 2), 3), z = round(runif(n, -3, 3), 3),
                w = round(rgamma(n, 4, 4) + .05, 3), off = round(rnorm(n), 2), e = round(exp(rnorm(n)), 4))
y <- 10 + d$x - .5 * d$z + c(a = 0, b = 1, c = -1)[d$f] + per(g, 1.5) + d$x * per(g, .7) + d$z * per(g, .5) +
  c(a = 0, b = .8, c = .3)[d$f] * per(g, 1.2)
d$y <- round(y + rnorm(n) / sqrt(d$w), 3)
put(d, "groups")

# responses for singular fits: residuals that carry nothing at the level of g (or g and h)
set.seed(105)
d <- expand.grid(rep = 1:6, h = pad("h", 1:4, 1), g = pad("g", 1:15))
n <- nrow(d); d$x <- round(rnorm(n), 3); d$z <- round(rnorm(n), 3); d$rep <- NULL
clean <- function(e, ...) residuals(lm(e ~ g + g:x + g:z + h, d))
e <- clean(rnorm(n)); a <- per(d$g, 1.5)
d$none <- round(3 + d$x + e, 4)                                         # no variance in anything
d$intercept <- round(3 + d$x + a + e, 4)                                # intercepts only
d$slope <- round(3 + d$x + d$x * a + e, 4)                              # slopes only
d$tied <- round(3 + d$x + a * (1 - .6 * d$x) + e, 4)                    # correlation -1
d$tied3 <- round(3 + d$x + a * (1 - .6 * d$x + .9 * d$z) + e, 4)        # 3 coefficients, rank 1
b <- per(d$g, 1)
d$plane <- round(3 + d$x + a + b * d$x + (a - b) * d$z + e, 4)          # 3 coefficients, rank 2
put(d[c("g", "h", "x", "z", "none", "intercept", "slope", "tied", "tied3", "plane")], "singular")

# sleepstudy in other units, and with a column that repeats another
d <- shipped("sleepstudy")
d$big <- d$Reaction * 1e6; d$shifted <- d$Reaction + 1e6
d$year <- 2011 + d$Days; d$twice <- 2 * d$Days + 1
d$baseline <- ifelse(d$Days < 3, "before", "after"); d$later <- ifelse(d$Days < 3, "no", "yes")
put(d, "sleepstudy_scaled")

# sleepstudy with missing values in each column; subject 335 has no response at all
set.seed(106)
d <- shipped("sleepstudy"); d$w <- sample(c(.5, 1, 2), nrow(d), TRUE)
for (v in names(d)) d[sample(nrow(d), 6), v] <- NA
d$Reaction[d$Subject %in% 335] <- NA
put(d, "sleepstudy_missing")

# Penicillin with 46 readings taken out; cake without recipe C at the two highest temperatures
set.seed(107)
d <- shipped("Penicillin"); put(d[sort(sample(nrow(d), 98)), ], "penicillin_unbalanced")
d <- shipped("cake"); put(d[!(d$recipe == "C" & d$temp > 210), ], "cake_empty_cells")
