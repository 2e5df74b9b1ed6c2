//! The lock area: leases and ownership records on shared storage.
