//! Time limits for HTTP/1.1 and HTTP/2 on both sides. They cost almost nothing as long as they are not exceeded.
//!
//! [`WaitTimeout`](wait_timeout::WaitTimeout) bounds how long a connection waits for its peer, and
//! [`WriteStall`](write_stall::WriteStall) how long a write is blocked. [`LogThrottle`](log_throttle::LogThrottle) bounds how
//! often a repeated line is logged.

pub(super) mod log_throttle;
pub(super) mod wait_timeout;
pub(super) mod write_stall;
