//! From start to drain: the command line and the program around a proxy.
