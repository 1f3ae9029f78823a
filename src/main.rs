//! The `pointsman` program: [`pointsman::cli`] with an allocator that returns memory to the system.

/// After a million actors have started and stopped, the system's allocator would keep their memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> pointsman::cli::Exit {
    pointsman::cli::main()
}
