//! What is built is what edges read; nothing else opens.

mod base;
mod fuzz;
mod grants;
mod sets;
mod signatures;
mod standing;
mod world;
