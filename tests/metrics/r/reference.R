# Writes reference.csv: Rscript reference.R > reference.csv      (apt-get install r-base-core; no package is needed)
#
# Exact binomial limits by binom.test; Newcombe's limits of an AUROC (2006, method 5) as real roots of the quartic that
# his equation becomes; calibration intercept and slope with Wald limits by glm.
options(digits = 15)
cat("# R ", as.character(getRversion()), "\n", sep = "")
cat("what,first,second,third,value,low,high\n")
line <- function(...) cat(paste(..., sep = ","), "\n", sep = "")
num <- function(x) sprintf("%.12f", x)

for (pair in list(c(81, 263), c(15, 148), c(0, 20), c(1, 29), c(20, 20), c(9, 10), c(480, 490))) {
  ends <- binom.test(pair[1], pair[2])$conf.int
  line("clopper-pearson", pair[1], pair[2], "", num(pair[1] / pair[2]), num(ends[1]), num(ends[2]))
}

# (t - a)^2 mn = z^2 t (1 - t) (1 + N (1 - t) / (2 - t) + N t / (1 + t)), times (2 - t)(1 + t), N = (m + n) / 2 - 1.
times <- function(p, q) {
  out <- rep(0, length(p) + length(q) - 1)
  for (i in seq_along(p)) for (j in seq_along(q)) out[i + j - 1] <- out[i + j - 1] + p[i] * q[j]
  out
}
for (case in list(c(0.5, 10, 90), c(0.9, 5, 45), c(0.99, 10, 90), c(0.8, 37, 62), c(1, 10, 90), c(0.3, 50, 500))) {
  a <- case[1]; m <- case[2]; n <- case[3]; N <- (m + n) / 2 - 1; z <- qnorm(0.975)
  both <- times(c(2, -1), c(1, 1))
  left <- m * n * times(c(a^2, -2 * a, 1), both)
  inner <- both + N * times(c(1, -1), c(1, 1)) + N * times(c(0, 1), c(2, -1))
  right <- z^2 * times(c(0, 1, -1), inner)
  roots <- polyroot(left - right)
  real <- sort(Re(roots[abs(Im(roots)) < 1e-8]))
  inside <- real[real > -1e-9 & real < 1 + 1e-9]
  line("newcombe", a, m, n, num(a), num(max(0, min(inside))), num(min(1, max(inside))))
}

asah <- read.csv("../proc/asah.csv")
p <- plogis(-2 + 1.3 * scale(asah$wfns)[, 1] + 0.6 * scale(asah$s100b)[, 1])
odds <- qlogis(p)
large <- glm(outcome ~ 1, offset = odds, family = binomial, data = asah, control = list(epsilon = 1e-14))
joint <- glm(outcome ~ odds, family = binomial, data = asah, control = list(epsilon = 1e-14))
for (fit in list(list("intercept", large, 1), list("slope", joint, 2))) {
  summed <- summary(fit[[2]])$coefficients[fit[[3]], ]
  ends <- summed[1] + c(-1, 1) * qnorm(0.975) * summed[2]
  line(fit[[1]], "", "", "", num(summed[1]), num(ends[1]), num(ends[2]))
}
