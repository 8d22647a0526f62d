# Write the data (aSAH, which pROC ships) and what pROC computes from it:
#   Rscript tests/metrics/proc/reference.R tests/metrics/proc
# Debian: apt-get install r-base-core r-cran-proc
suppressMessages(library(pROC))
folder <- commandArgs(trailingOnly = TRUE)[1]
data(aSAH)

columns <- aSAH[, c("outcome", "s100b", "ndka", "wfns")]
columns$outcome <- as.integer(columns$outcome == "Poor")
columns$wfns <- as.integer(columns$wfns)
write.csv(columns, file.path(folder, "asah.csv"), row.names = FALSE, quote = FALSE)

names <- c("s100b", "ndka", "wfns")
curves <- lapply(names, function(name) {
  roc(columns$outcome, columns[[name]], levels = c(0, 1), direction = "<", quiet = TRUE)
})
names(curves) <- names

values <- list()
add <- function(subject, quantity, number) {
  values[[length(values) + 1]] <<- sprintf("%s,%s,%.17g", subject, quantity, number)
}
for (name in names) {
  interval <- as.numeric(ci.auc(curves[[name]], method = "delong"))
  add(name, "auc", as.numeric(auc(curves[[name]])))
  add(name, "variance", var(curves[[name]], method = "delong"))
  add(name, "low", interval[1])
  add(name, "high", interval[3])
}
for (pair in list(c("s100b", "ndka"), c("s100b", "wfns"), c("wfns", "ndka"))) {
  test <- roc.test(curves[[pair[1]]], curves[[pair[2]]], method = "delong", paired = TRUE)
  subject <- paste(pair, collapse = "-")
  add(subject, "z", as.numeric(test$statistic))
  add(subject, "p", as.numeric(test$p.value))
  add(subject, "low", test$conf.int[1])
  add(subject, "high", test$conf.int[2])
  add(subject, "covariance", cov(curves[[pair[1]]], curves[[pair[2]]], method = "delong"))
}
version <- sprintf("# pROC %s, %s", packageVersion("pROC"), R.version.string)
writeLines(c(version, "subject,quantity,value", unlist(values)), file.path(folder, "reference.csv"))
