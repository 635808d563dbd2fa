//! One binary for all tests of behaviour: a module a promise, or a kind of fault.

mod attempts;
