"""The SavedModel and its proof.

`zoo.export(model, directory, ...)` is `zoo.export.saved_model.export`: the room and the function have one name, so the
room can be called.
"""

import sys
import types


class _Room(types.ModuleType):
    def __call__(self, *args, **kwargs):
        from zoo.export.saved_model import export

        return export(*args, **kwargs)


sys.modules[__name__].__class__ = _Room
