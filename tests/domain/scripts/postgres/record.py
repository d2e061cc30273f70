#!/usr/bin/env python3
"""Writes what a real PostgreSQL answers to the statements of the files beside this one.

    python3 record.py 'host=/tmp port=5432 user=postgres' FILE...      (needs psycopg2; the schema public is emptied)

A file has statements, each on a line after `> `; the lines between two of them are the answer and are written anew:

    > SELECT a, b FROM t          what is asked
    = a | b                       names of the columns
    1 | NULL                      a row, values as text
    ! 22012                       or the error's code
    # 2                           or the rows that were written

The statements are in our words. PostgreSQL is asked in its own: INT is BIGINT, FLOAT is float8 and so is a number with a
point, BLOB is BYTEA, X'00' is '\\x00'; its int8, float8, varchar are called int, float, text. Run it on a database
with `--locale=C -E UTF8`.
"""
import re
import sys

import psycopg2
import psycopg2.extensions

TEXT = psycopg2.extensions.new_type(
    (16, 17, 18, 20, 21, 23, 25, 700, 701, 705, 1042, 1043, 1114, 1700), "TEXT", lambda value, cursor: value
)
NUMBER = r"(?<![\w.])(\d+\.\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)(?![\w.])(?!::)"
INTEGER = r"(?<![\w.(])(?<!ORDER BY )(?<!GROUP BY )(\d{1,19})(?![\w.]|::)(?=\s*[-+*/%|])"
NAMES = {"int8": "int", "int4": "int", "int2": "int", "float8": "float", "float4": "float", "varchar": "text", "bytea": "blob"}


def translated(sql):
    sql = re.sub(r"\b[Xx]'([0-9a-fA-F]*)'", r"'\\x\1'::bytea", sql)
    for ours, theirs in (("BLOB", "BYTEA"), ("STRING", "TEXT"), ("INT", "BIGINT")):
        sql = re.sub(rf"\b{ours}\b", theirs, sql)
    parts = re.split(r"('(?:[^']|'')*')", sql)
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(NUMBER, r"\1::float8", parts[i])
        if not sql.startswith(("CREATE", "DROP")):
            parts[i] = re.sub(INTEGER, r"\1::bigint", parts[i])
    return "".join(parts)


def ask(cursor, sql):
    try:
        cursor.execute(sql)
    except psycopg2.Error as error:
        return error.pgcode or "42601", None, None
    if cursor.description is None:
        return None, cursor.rowcount, None
    return None, [column.name for column in cursor.description], [list(row) for row in cursor.fetchall()]


def text(value, oid):
    if value is None:
        return "NULL"
    if oid == 16:
        return {"t": "true", "f": "false"}[value]
    if oid == 1700 and "." in value:
        # AVG of integers, and numbers of the raw statement: a FLOAT with us.
        number = float(value)
        return str(int(number)) if number == int(number) and abs(number) < 1e15 else repr(number)
    return str(value).replace("\\", "\\\\").replace("\n", "\\n")


def answer(cursor, sql):
    own = translated(sql)
    error, names, rows = ask(cursor, own)
    types = [column.type_code for column in cursor.description or ()]
    if own != sql and (error or rows is not None):
        # As written it has the names, and the errors, that the translation may change.
        literal_error, literal_names, literal_rows = ask(cursor, sql)
        if error and literal_error is None and literal_rows is not None:
            error, names, rows = None, literal_names, literal_rows
            types = [column.type_code for column in cursor.description or ()]
        elif literal_rows is not None and len(literal_names) == len(names or ()):
            names = literal_names
    if error:
        return [f"! {error}"]
    if rows is None:
        return [f"# {max(names, 0)}"]
    lines = ["= " + " | ".join(NAMES.get(name, name) for name in names)]
    return lines + [" | ".join(text(value, oid) for value, oid in zip(row, types)) for row in rows]


def main():
    connection = psycopg2.connect(sys.argv[1])
    connection.autocommit = True
    psycopg2.extensions.register_type(TEXT, connection)
    cursor = connection.cursor()
    for path in sys.argv[2:]:
        cursor.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        lines = open(path, encoding="utf-8").read().splitlines()
        out, head = [], True
        for line in lines:
            head = head and not line.startswith("> ")
            if head:
                out.append(line)
            elif line.startswith("> "):
                out += [line, *answer(cursor, line[2:]), ""]
        open(path, "w", encoding="utf-8").write("\n".join(out).rstrip("\n") + "\n")


main()
