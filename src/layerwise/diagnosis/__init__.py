"""The doctor: why a network does not learn, in findings that name the cause, the place, the mend.

`layerwise.doctor` is the function in `examine`; this room has another name so as not to hide it.
"""
