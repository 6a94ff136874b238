//! Logs, counters, histograms and the access log.
