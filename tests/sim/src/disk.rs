//! A simulated disk: what was not synced may be lost.
