//! Formats data for people.

use std::{
    fmt,
    io::{self, Write as _},
};

use serde_json::{Value, json};
use time::UtcDateTime;

use super::error::CliError;
use crate::{
    domain::{EdgeId, UnixMillis, UnixSeconds},
    edges::RolloutStatus,
};

/// Returns a table whose columns are as wide as their widest cell.
pub(super) fn table<const N: usize>(head: [&str; N], rows: Vec<[String; N]>) -> String {
    let mut widths = head.map(str::len);
    let rows: Vec<[String; N]> = rows.into_iter().map(|row| row.map(|cell| printable(&cell))).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: [&str; N]| {
        let padded: Vec<String> =
            cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        padded.join("  ").trim_end().to_owned() + "\n"
    };
    let mut text = line(head);
    for row in &rows {
        text += &line(row.each_ref().map(String::as_str));
    }
    text
}

/// Escapes control characters, so that a name cannot forge lines or control the terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut safe, char| {
        match char.is_control() || is_bidirectional(char) {
            true => safe.extend(char.escape_unicode()),
            false => safe.push(char),
        }
        safe
    })
}

/// Returns true for characters that change the order in which a terminal shows other characters.
fn is_bidirectional(char: char) -> bool {
    matches!(char, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Returns the edges in each rollout state as JSON.
pub(super) fn rollout_json(reached: &RolloutStatus) -> Value {
    let RolloutStatus { enforcing, lagging, silent, may_admit, never_seen: unseen, kept_streams } = reached;
    let names = |edges: &[EdgeId]| edges.iter().map(EdgeId::to_string).collect::<Vec<_>>();
    let (enforcing, lagging) = (names(enforcing), names(lagging));
    let (silent, may_admit, unseen) = (names(silent), names(may_admit), names(unseen));
    json!({
        "enforcing": enforcing,
        "lagging": lagging,
        "silent": silent,
        "may_admit": may_admit,
        "unseen": unseen,
        "kept_streams": kept_streams,
    })
}

/// Formats a time as in RFC 3339, in UTC.
pub(super) fn format_time(time: UnixMillis) -> String {
    // `time` ends with the year 9999.
    let seconds = i64::try_from(time.seconds().get()).unwrap_or(i64::MAX);
    let utc = UtcDateTime::from_unix_timestamp(seconds).unwrap_or(UtcDateTime::MAX);
    let (year, month, day) = utc.to_calendar_date();
    let (hour, minute, second) = utc.time().as_hms();
    format!("{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z", u8::from(month))
}

pub(super) fn format_optional_seconds(seconds: Option<UnixSeconds>) -> String {
    seconds.map_or("never".to_owned(), |seconds| format_time(UnixMillis::from_seconds(seconds)))
}

/// Prints data.
pub(super) fn write_stdout(answer: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    match out.write_all(format!("{}\n", answer.trim_end_matches('\n')).as_bytes()).and_then(|()| out.flush())
    {
        // `keystile audit | head`
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => Ok(done?),
    }
}

/// Prints a hint to stderr.
pub(super) fn hint(text: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_time_matches_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(format_time(UnixMillis::from_seconds(UnixSeconds::new(seconds))), expected);
        }
    }

    #[test]
    fn table_columns_are_aligned() {
        let rows = vec![["a".to_owned(), "1".to_owned()], ["long".to_owned(), "2".to_owned()]];
        assert_eq!(table(["id", "n"], rows), "id    n\na     1\nlong  2\n");
        let rows = vec![["a\nkey-9  good".to_owned(), "\u{1b}[31mred".to_owned()]];
        let shown = table(["id", "n"], rows);
        assert_eq!(shown.lines().count(), 2);
        assert!(!shown.contains('\u{1b}'), "{shown}");
    }
}
