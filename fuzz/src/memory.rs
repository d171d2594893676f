//! Memory that ends: whoever allocates past what it may ends the process, and libFuzzer shows the input.

use std::alloc::System;

use cap::Cap;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Does `work`, which may take so many bytes more than are taken now.
pub fn within<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let most = ALLOCATOR.allocated().saturating_add(bytes);
    ALLOCATOR.set_limit(most).expect("less than that is taken");
    let made = work();
    ALLOCATOR.set_limit(usize::MAX).expect("no limit is below what is taken");
    made
}
