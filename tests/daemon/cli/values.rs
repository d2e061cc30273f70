//! Values that an import must not change on their way.

use super::*;

#[test]
fn a_negative_zero_is_imported_as_one_where_the_column_has_one() {
    let inside = directory();
    std::fs::write(inside.path().join("z.csv"), "id,f,i\n1,-0,-0\n2,-0.0,0\n3,0,5\n4,1.5,7\n").expect("writes");
    let ran = import(inside.path(), &["z.csv", "--primary-key", "id"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    // As PostgreSQL writes '-0'::float8 and 0::int8.
    assert_eq!(query(inside.path(), "SELECT * FROM z ORDER BY id"), "id,f,i\n1,-0,0\n2,-0,0\n3,0,5\n4,1.5,7\n");
    // Zero all the same, to every comparison.
    assert_eq!(query(inside.path(), "SELECT COUNT(*) AS n FROM z WHERE f = 0"), "n\n3\n");
}
