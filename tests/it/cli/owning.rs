//! Two repositories with one publisher's name: the first owns the names, and Hob says so.

use hob::model::Code;
use serde_json::json;

use super::rig::{Rig, Signed};

#[test]
fn the_first_remote_that_has_a_publisher_owns_its_names() {
    let (rig, first, second) = (Rig::new(), Signed::new(), Signed::new());
    first.publish_plain("lab/other", "0.1.0");
    second.publish_plain("lab/plain", "0.9.0");
    rig.trust(&first.url(), &first.repository);
    let root = second.repository.join("metadata/1.root.json");
    rig.hob(&["remote", "add", "second", &second.url(), "--root", root.to_str().unwrap()]).well();
    let says = ["`main` has no recipe `lab/plain`", "`second`", "`hob add lab/plain --remote second`"];
    rig.hob(&["add", "lab/plain"]).refused(Code::NotInRepository, &says);
    rig.assert_empty();
    let fault = rig.hob(&["add", "lab/plain", "--json"]).json()["fault"].clone();
    assert_eq!(fault["detail"]["also_in"], json!(["second"]), "{fault}");

    // The operator names the second remote, and the output says whose `lab` it is.
    let added = rig.hob(&["add", "lab/plain", "--remote", "second", "--json"]);
    added.well();
    assert_eq!((&added.json()["remote"], &added.json()["also_in"]), (&json!("second"), &json!(["main"])));
    assert!(added.stderr.contains("this `lab` is the one of remote `second`") && added.stderr.contains("`main`"), "{added:#?}");
    // The second remote does not answer for the first, neither while its recipe is installed nor after its
    // removal.
    rig.hob(&["add", "lab/plain"]).refused(Code::NotInRepository, &says);
    rig.hob(&["remove", "lab/plain"]).well();
    rig.hob(&["add", "lab/plain"]).refused(Code::NotInRepository, &says);
    // A version that the first remote lacks is not looked for elsewhere either.
    first.publish_plain("lab/plain", "0.1.0");
    rig.hob(&["add", "lab/plain@=0.9.0"]).refused(Code::NotInRepository, &["`main` has no version", "--remote second"]);
    let added = rig.hob(&["add", "lab/plain", "--json"]);
    added.well();
    let added = added.json();
    assert_eq!((&added["remote"], &added["version"], &added["also_in"]), (&json!("main"), &json!("0.1.0"), &json!(["second"])));
    // A recipe from the first remote is not replaced by one of another publisher.
    rig.hob(&["add", "lab/plain", "--remote", "second"]).refused(Code::PublisherKeyChanged, &["`second`"]);
}
