use alloc::format;

use crate::abi::{self, LogLevel};

pub(crate) fn info(message: &str) {
    line(LogLevel::Info, message);
}

pub(crate) fn warn(message: &str) {
    line(LogLevel::Warn, message);
}

pub(crate) fn error(message: &str) {
    line(LogLevel::Error, message);
}

fn line(level: LogLevel, message: &str) {
    abi::log(level, &format!("keystile: {message}"));
}
