"""The exact calls of the document comparison: SnapDB, sqlite3 with JSON1 and TinyDB, each as its users write them."""

import json
import random
import sqlite3
from operator import itemgetter

from snapdb import DocumentStore

COUNT = 100_000
CITIES = 1_000


def documents(count=COUNT):
    """Documents of five fields: two integers, two texts, a float."""
    pick = random.Random(42)
    return [
        {
            "id": number,
            "name": f"user {number}",
            "age": pick.randrange(18, 90),
            "city": f"city {pick.randrange(CITIES)}",
            "score": round(pick.random() * 100, 3),
        }
        for number in range(count)
    ]


class Snap:
    """SnapDB's DocumentStore."""

    name = "SnapDB"

    def __init__(self, path):
        self.store = DocumentStore(path)

    def insert_all(self, given):
        self.store.insert_many(given)

    def insert_each(self, given):
        for document in given:
            self.store.insert(document)

    def index(self):
        self.store.create_index("name")
        self.equal("")  # makes it

    def equal(self, name):
        return self.store.query({"name": name})

    def between(self, low, high):
        return self.store.query({"score": {"$gte": low, "$lt": high}})

    def close(self):
        self.store.close()


class JSON1:
    """sqlite3 with a column of JSON text."""

    name = "sqlite3"

    def __init__(self, path):
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("CREATE TABLE documents (id INTEGER PRIMARY KEY, document TEXT)")

    def insert_all(self, given):
        self.db.execute("BEGIN")
        self.db.executemany(
            "INSERT INTO documents (document) VALUES (?)", ((json.dumps(document),) for document in given)
        )
        self.db.execute("COMMIT")

    def insert_each(self, given):
        self.db.execute("BEGIN")  # one transaction for all; SnapDB and TinyDB write each for itself
        for document in given:
            self.db.execute("INSERT INTO documents (document) VALUES (?)", (json.dumps(document),))
        self.db.execute("COMMIT")

    def index(self):
        self.db.execute("CREATE INDEX names ON documents (json_extract(document, '$.name'))")

    def equal(self, name):
        found = self.db.execute("SELECT document FROM documents WHERE json_extract(document, '$.name') = ?", (name,))
        return [json.loads(text) for (text,) in found]

    def between(self, low, high):
        found = self.db.execute(
            "SELECT document FROM documents"
            " WHERE json_extract(document, '$.score') >= ? AND json_extract(document, '$.score') < ?",
            (low, high),
        )
        return [json.loads(text) for (text,) in found]

    def close(self):
        self.db.close()


class Tiny:
    """TinyDB, which has no indexes, and writes its whole file with every call that inserts."""

    name = "TinyDB"

    def __init__(self, path):
        from tinydb import TinyDB, where
        from tinydb.storages import MemoryStorage

        self.where = where
        self.db = TinyDB(storage=MemoryStorage) if path == ":memory:" else TinyDB(path)

    def insert_all(self, given):
        self.db.insert_multiple(given)

    def insert_each(self, given):
        for document in given:
            self.db.insert(document)

    def index(self):
        pass

    def equal(self, name):
        self.db.clear_cache()  # else the second of two equal questions is no question
        return self.db.search(self.where("name") == name)

    def between(self, low, high):
        self.db.clear_cache()
        score = self.where("score")
        return self.db.search((score >= low) & (score < high))

    def close(self):
        self.db.close()


PEERS = (Snap, JSON1, Tiny)


def same(answers):
    """Whether all found the same documents."""
    first, *others = [sorted(answer, key=itemgetter("id")) for answer in answers]
    return all(first == list(map(dict, other)) for other in others)
