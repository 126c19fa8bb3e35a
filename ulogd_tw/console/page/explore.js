import { fill, notice } from "./parts.js";

export function show(place) {
  fill(place, notice("...", "quiet"));
  return {};
}
