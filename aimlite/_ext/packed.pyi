MAX_LEVELS: int
MAX_ITEMS: int

def packed_end(data: bytes, start: int = 0, max_items: int = ...) -> int: ...
