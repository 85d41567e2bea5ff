"""Inputs that are nearly right."""

from hypothesis import strategies as st


@st.composite
def damaged(draw, inputs: list[bytes]) -> bytes:
    """One of these with something cut out and something else put in."""
    whole = draw(st.sampled_from(inputs))
    start = draw(st.integers(0, len(whole)))
    end = draw(st.integers(start, len(whole)) | st.integers(start, min(start + 8, len(whole))))
    other = draw(st.sampled_from(inputs))
    piece = st.binary(max_size=6) | st.integers(0, len(other)).map(lambda at: other[at : at + 8])
    return whole[:start] + draw(piece) + whole[end:]
