//! Tests of that part, through its narrowest real door.
