//! Tests what each format accepts and refuses, and which words are formats.

use super::*;
use crate::model::limits::DOCUMENT_BYTES_MAX;

/// For each checked format: texts that match, and texts that do not.
const TEXTS: &[(&str, &[&str], &[&str])] = &[
    (
        "date",
        &["2024-02-29", "0000-12-31"],
        &["2023-02-29", "2024-13-01", "2024-1-01", "2024-01-00", "2024-01-32", "", "2024-01-01Z", "২০২৪-01"],
    ),
    (
        "date-time",
        &["2024-01-01T00:00:00Z", "1990-12-31t23:59:60z", "1990-12-31T15:59:60.123-08:00", "2024-01-01T00:00:00+23:59"],
        &[
            "2024-01-01 00:00:00Z",
            "2024-01-01T00:00:00",
            "2024-01-01",
            "2024-01-01T24:00:00Z",
            "1990-12-31T15:59:60-07:00",
            "2024-01-0éT00:00:00Z",
        ],
    ),
    (
        "time",
        &["08:30:06.283185Z", "23:59:60Z", "00:29:60+00:30"],
        &["8:30:06Z", "08:30:06", "08:30:06.Z", "08:60:06Z", "22:59:60Z", "08:30:06+24:00", "08:30:06z "],
    ),
    (
        "duration",
        &["P4Y", "P1Y2M3DT4H5M6S", "PT0.5S", "P8W", "PT36H"],
        &["P", "PT", "4Y", "P1S", "P1D2H", "P2D1Y", "P1.5D", "P1YT", "P1", "PT1", "P1W2D", "Pé"],
    ),
    (
        "email",
        &["a@b.org", "joe.bloggs+x@example.com", "\"joe bloggs\"@example.com", "te~st@localhost", "a@[127.0.0.1]", "a@[IPv6:::1]"],
        &[
            "nothing like it",
            "2962",
            "@b.org",
            "a@",
            ".a@b.org",
            "a..b@b.org",
            "a.@b.org",
            "a@-b.org",
            "a@b c",
            "\"@b.org",
            "a@[1.2.3]",
            "ä@b.org",
            "a@b@c",
        ],
    ),
    ("idn-email", &["실례@실례.테스트", "a@b.org"], &["실례", "@실례", "a@실 례"]),
    (
        "hostname",
        &["www.example.com", "localhost", "xn--4gbwdl.xn--wgbh1c", "1host"],
        &["", ".", "a.", "-a", "a-", "a_b", "a..b", "exämple", "a b"],
    ),
    ("ipv4", &["192.168.0.1", "0.0.0.0"], &["256.1.1.1", "1.2.3", "087.10.0.1", "0x7f.1", "1.2.3.4 ", "१.2.3.4"]),
    ("ipv6", &["::1", "::ffff:192.168.0.1", "1:2:3:4:5:6:7:8"], &["12345::", "1:2:3:4:5:6:7:8:9", "::1%eth0", "::1/64", "[::1]", ":"]),
    (
        "uri",
        &[
            "http://foo.bar/?baz=qux#quux",
            "mailto:a@b.org",
            "urn:oasis:names",
            "http://[::1]:80/",
            "http://u:p@h/%20",
            "tel:+1-816-555-1212",
            "ftp://h",
        ],
        &[
            "//foo.bar",
            "/abc",
            "abc",
            "http:// x",
            "\\\\W\\s",
            ":// fail",
            "http://a/%2",
            "http://[::1",
            "http://h:80a/",
            "ba~r:x",
            "http://ä/",
            "http://a/<b>",
        ],
    ),
    (
        "uri-reference",
        &["http://foo.bar/", "//foo.bar/?x", "/abc", "abc", "#frag", "", "./a:b"],
        &["\\\\W", "abc def", "#a\\b", "1a:b", "#a#b"],
    ),
    ("iri", &["http://ƒøø.ßår/?∂éœ=πîx"], &["/âππ", "http://a b", "ß:a"]),
    ("iri-reference", &["/âππ", "#ƒräg"], &["#ƒräg\\mênt", "\u{85}"]),
    ("json-pointer", &["", "/", "/foo/0", "/a~1b~0", "/\u{1f600}"], &["foo", "/~", "/~2", "#", "/a~"]),
    ("relative-json-pointer", &["0", "1/foo", "2#", "0+1", "10-2/a"], &["", "01/a", "-1", "/foo", "0##", "a", "0+0", "1foo"]),
    (
        "uri-template",
        &["http://e.org/{term:1}/{?q*,lang}", "", "{+path}/here", "{a.b}"],
        &["{", "}", "{}", "{a:0}", "{a:12345}", "{a b}", "a b", "%2"],
    ),
    (
        "regex",
        &[
            "^[\\w\\-\\.\\+]+$",
            "(?=a)(?<!b)x\\1",
            "([abc])+\\s+$",
            "(?<y>\\d{4})\\k<y>",
            "a{2,}?",
            "[]",
            "[^]",
            "[a-]",
            "\\p{Script=Greek}",
            "\\u{1f600}",
            "",
        ],
        &[
            "^(abc]",
            "\\Z",
            "a**",
            "*a",
            "(",
            ")",
            "[z-a]",
            "a{2,1}",
            "[",
            "\\",
            "(?<a>)(?<a>)",
            "\\k<a>",
            "(?P<a>b)",
            "a{",
            "x}",
            "(?<=a)*",
        ],
    ),
    (
        "uuid",
        &["2EB8AA08-aa98-11EA-B4AA-73B441D16380"],
        &["", "2eb8aa08-aa98-11ea-b4aa-73b441d1638", "2eb8aa08aa98-11ea-b4aa73b441d16380", "{2eb8aa08-aa98-11ea-b4aa-73b441d16380}"],
    ),
];

#[test]
fn each_format_that_is_held_takes_what_its_standard_does_and_nothing_else() {
    let tested: Vec<_> = TEXTS.iter().map(|(name, _, _)| *name).collect();
    assert!(HELD.iter().all(|(name, _)| tested.contains(name)), "{tested:?}");
    for (name, good, bad) in TEXTS {
        let judge = HELD.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("{name}")).1;
        for text in *good {
            assert!(judge(text), "{name}: {text:?}");
        }
        for text in *bad {
            assert!(!judge(text), "{name}: {text:?}");
        }
    }
}

/// As long as a document may be, and made to keep a check busy for as long as possible: none needs more than
/// a pass or two, so this ends at once.
#[test]
fn no_text_makes_a_judge_turn_back() {
    for unit in [
        "a", "a.", "-", "%41", "1", "{a}", "{", "(", "()", "[a-b]", "\\", "(?<a", "~0", "/", "@", "\"a@", "[", ":", "é", "P1Y", "a,",
        "\\k<a>",
    ] {
        let text = unit.repeat(DOCUMENT_BYTES_MAX / unit.len());
        for (_, judge) in HELD {
            for (before, after) in [("", ""), ("http://", "/")] {
                std::hint::black_box(judge(&format!("{before}{text}{after}")));
            }
        }
    }
}

#[test]
fn a_format_is_held_or_listed_or_refused_with_the_nearest() {
    assert_eq!(kind("email"), Kind::Held);
    for word in ["int32", "binary", "x-colour", "idn-hostname"] {
        assert_eq!(kind(word), Kind::Annotation, "{word}");
    }
    for (word, nearest) in [("emial", "email"), ("datetime", "date-time"), ("E-Mail", "email"), ("UUID", "uuid"), ("int46", "int64")] {
        assert_eq!(kind(word), Kind::Unknown(Some(nearest)), "{word}");
    }
    for word in ["", "x-", "zip", "phone"] {
        assert_eq!(kind(word), Kind::Unknown(None), "{word}");
    }
    let mut words: Vec<_> = HELD.iter().map(|(word, _)| *word).chain(ANNOTATIONS.iter().copied()).collect();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), HELD.len() + ANNOTATIONS.len());
}
