//! Texts of faults: bounded, printable, and without the users and passwords of addresses.

use crate::model::{limits::FAULT_MESSAGE_BYTES_MAX, printable::printable, secret::without_users};

/// At most the first `bytes` bytes of a text.
pub(super) fn cut(mut text: String, bytes: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes));
    text
}

/// The text of a fault: bounded, without characters that command a terminal, and without the users and
/// passwords of addresses.
pub(super) fn said(text: &str) -> String {
    let head = &text[..text.floor_char_boundary(FAULT_MESSAGE_BYTES_MAX)];
    cut(printable(&without_users(head)).into_owned(), FAULT_MESSAGE_BYTES_MAX)
}
