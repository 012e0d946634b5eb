"""Request bodies: typed, bounded, with errors that name the field."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from dms_server.errors import BadRequestError

M = TypeVar("M", bound=BaseModel)


class Body(BaseModel):
    """A request body: unknown fields are left aside, so that newer clients can talk to older servers."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


def parse_body(data: bytes, model: type[M]) -> M:
    """Return JSON bytes as `model`. Raises BadRequestError that names the field."""
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            raise BadRequestError("the body is not JSON; send one JSON object") from error
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise BadRequestError(f"{where[:80]}: {first['msg'][:200]}") from error
