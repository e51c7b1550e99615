//! One Python (or other) process: wire, state machine, driver.
