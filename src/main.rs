//! The `pointsman` program: [`pointsman::cli`] with an allocator that gives memory back.

/// After a million actors have come and gone, the system's allocator would keep their memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> pointsman::cli::Exit {
    pointsman::cli::main()
}
