//! Who is well: probes' verdicts and the passive breaker, without IO.
