//! Tests of the store that look into its file, or damage it. What every backend must do is in the suite.

mod damage;
mod failing;
mod instances;
mod moved_zones;
mod rows;
mod told_zones;
mod updated_zones;
mod zones;

/// Makes a test of each function, on a file.
macro_rules! on_a_file {
    ($($name:ident),* $(,)?) => {
        mod on_a_file {
            $(#[test] fn $name() { super::$name(&mut crate::store::sqlite::kit::on_file()); })*
        }
    };
}
use on_a_file;
