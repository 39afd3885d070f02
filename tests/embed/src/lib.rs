//! Nothing: the event loops of others are dev-dependencies, so all there is lives in `tests/hosts`.
