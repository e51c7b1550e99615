// The words of a text: a module of its own, because glue may have several.
export const split = (text) => text.toLowerCase().split(/\s+/).filter((word) => word !== '');
