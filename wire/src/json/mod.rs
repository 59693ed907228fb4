//! The JSON encoding: one frame a text, `{"id":7,"send":{…}}`, for any language.

mod entry;
