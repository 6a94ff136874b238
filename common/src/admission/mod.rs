//! Who may go on, and when: the fair gate, deadlines, token buckets.
