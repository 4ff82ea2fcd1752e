//! Migrations are read by a macro, which the compiler does not follow: a changed step rebuilds the crate.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
