//! The machine that the fuzz targets drive.

pub mod machine;
